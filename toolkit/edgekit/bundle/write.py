"""Write bundles: a folder, or the same folder as one stored ZIP."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.bundle.manifest import MANIFEST, SIGNATURE, Variant, manifest_data
from edgekit.bundle.read import open_bundle, verify_folder
from edgekit.bundle.sign import sign
from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError
from edgekit.core.files import json_text, resource_errors, write_bytes
from edgekit.core.records import Contract
from edgekit.plans.diffusion import PLAN as DIFFUSION
from edgekit.plans.diffusion import diffusion_from
from edgekit.plans.progressive import growth_from

# ZIP cannot store an earlier date; a fixed one keeps the bytes the same.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def finish_bundle(
    folder: Path,
    *,
    name: str,
    contract: Contract,
    variants: Sequence[Variant],
    facts: Mapping[str, Any],
    sign_key: Path | None = None,
) -> None:
    """Write manifest and signature for the files in `folder`, read all back and verify it.

    Files of the default variant come first in the manifest's load order.

    Args:
        folder: Holds `variants/`, `golden/` and whatever else belongs in the bundle.
        name: Of the bundle.
        contract: What the model takes and gives.
        variants: Best first; the first is the default.
        facts: Further manifest entries: gates, receipts, provenance.
        sign_key: PEM file with an Ed25519 private key.
    """
    order = _load_order(folder, variants)
    files = {p: ((folder / p).stat().st_size, digest_file(folder / p)) for p in order}
    data = manifest_data(
        name=name, contract=contract, variants=tuple(variants), files=files, order=order, facts=facts
    )
    raw = json_text(data).encode()
    write_bytes(folder / MANIFEST, raw)
    if sign_key:
        write_bytes(folder / SIGNATURE, sign(raw, sign_key))
    verify_folder(folder)


def _load_order(folder: Path, variants: Sequence[Variant]) -> tuple[str, ...]:
    ranks = {f"variants/{v.name}/": k for k, v in enumerate(variants)}
    # Of a model that grows, the segments stand in the order in which they are needed, what they are before them.
    places = {p: k for v in variants if v.plan for k, p in enumerate(_parts_order(folder, v))}

    def rank(path: str) -> tuple[int, int, str]:
        own = next((r for prefix, r in ranks.items() if path.startswith(prefix)), len(ranks))
        return own, places.get(path, 0), path

    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return tuple(sorted((p for p in found if p not in {MANIFEST, SIGNATURE}), key=rank))


def _parts_order(folder: Path, variant: Variant) -> list[str]:
    if variant.plan == DIFFUSION:
        plan = diffusion_from((folder / variant.main).read_text(), where=variant.main)
        return [variant.main, *(str(PurePosixPath(variant.main).parent / f) for f in plan.files)]
    growth = growth_from(json.loads((folder / variant.main).read_text()), where=variant.main)
    place = PurePosixPath(variant.main).parent
    return [variant.main, *(str(place / f) for s in growth.segments.values() for f in s.files)]


def pack(folder: Path, out: Path) -> Path:
    """Write a verified bundle folder as `.ekb`: stored, manifest first, then in load order.

    The same folder gives the same bytes.

    Raises:
        RecipeError: `out` exists.
        VerificationError: The folder does not verify.
    """
    if out.exists():
        raise RecipeError(f"{out}: is there already", hint="Choose another name or remove it.")
    manifest = verify_folder(folder)
    names = [MANIFEST, *([SIGNATURE] if (folder / SIGNATURE).exists() else []), *manifest.order]
    aside = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    with resource_errors(out):
        try:
            with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
                for name in names:
                    archive.writestr(zipfile.ZipInfo(name, _EPOCH), (folder / name).read_bytes())
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            with open_bundle(aside):
                pass
            aside.replace(out)
        finally:
            aside.unlink(missing_ok=True)
    return out
