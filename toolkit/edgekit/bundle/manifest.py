"""The manifest: what a bundle holds, checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.core.digest import plain
from edgekit.core.errors import RecipeError, VerificationError
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Contract
from edgekit.core.wire import contract_from

SCHEMA = "edgekit/bundle/v1"
MANIFEST, SIGNATURE = "manifest.json", "SIGNATURE"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run the model, and what a machine needs for it.

    Attributes:
        name: Folder under `variants/`, such as "openvino-int8".
        backend: Engine.
        precision: What was asked for.
        main: Path of the file the engine opens, inside the bundle.
        options: Settings for the engine.
        needs: Fingerprint: `arch` and `isa`, of each any of a list.
        engine: "in-bundle", or "build-on-device" where the device makes the engine.
        plan: How its parts run together: empty where one file is all, "progressive" where `main` names segments that are
            loaded one by one while it serves, "diffusion" where it names the parts of a pipeline that makes pictures.
    """

    name: str
    backend: str
    precision: str
    main: str
    options: Mapping[str, Any]
    needs: Mapping[str, Any]
    engine: str = "in-bundle"
    plan: str = ""

    def builds(self, root: Path) -> list[Path]:
        """Return the folders of a bundle in `root` whose engines are built on the device: one, or one a part."""
        if self.engine == "in-bundle":
            return []
        own = (root / self.main).parent
        return sorted(p.parent for p in own.glob("*/build.json")) if self.plan else [own]

    def artifact(self, root: Path, contract: Contract, *, segment: str = "") -> Artifact:
        """Return the artifact of this variant in the bundle folder `root`, or that of one of its segments.

        Raises:
            RecipeError: It is in segments, and none is named.
        """
        if self.plan and not segment:
            what = (
                "is a pipeline that makes pictures" if self.plan == "diffusion" else "grows while it serves"
            )
            raise RecipeError(
                f"variant {self.name}: {what}, it is no one file that an engine opens",
                hint="edgekit compile measures it; an app opens it with load().",
            )
        return Artifact(
            backend=self.backend,
            precision=self.precision,
            main=root / (segment or self.main),
            contract=contract,
            options=self.options,
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A parsed manifest; `data` is the whole of it."""

    name: str
    contract: Contract
    variants: tuple[Variant, ...]
    files: Mapping[str, tuple[int, str]]
    order: tuple[str, ...]
    data: Mapping[str, Any]


def manifest_data(
    *,
    name: str,
    contract: Contract,
    variants: tuple[Variant, ...],
    files: Mapping[str, tuple[int, str]],
    order: tuple[str, ...],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest as JSON knows it. `order` is how a reader should fetch the files."""
    return {
        "schema": SCHEMA,
        "name": name,
        "contract": plain(contract),
        "variants": [plain(v) for v in variants],
        "files": [{"path": p, "size": files[p][0], "sha256": files[p][1]} for p in order],
        **plain(dict(facts)),
    }


def parse_manifest(raw: bytes, *, where: str) -> Manifest:
    """Return the manifest in `raw`.

    Raises:
        VerificationError: It is no manifest of this schema, or names a file outside the bundle.
    """
    try:
        data = json.loads(raw)
        if data["schema"] != SCHEMA:
            raise VerificationError(
                f"{where}: schema {data['schema']!r}, this edgekit reads {SCHEMA!r}",
                hint="Use the edgekit version that wrote the bundle.",
            )
        files = {f["path"]: (int(f["size"]), str(f["sha256"])) for f in data["files"]}
        found = Manifest(
            name=data["name"],
            contract=contract_from(data["contract"]),
            variants=tuple(Variant(**v) for v in data["variants"]),
            files=files,
            order=tuple(files),
            data=data,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerificationError(
            f"{where}: {MANIFEST} is damaged ({error})", hint="Fetch the bundle again."
        ) from error
    _refuse_codec(found.contract, where)
    for path in (*found.files, *(v.main for v in found.variants)):
        if not inside(path):
            raise VerificationError(f"{where}: {path!r} points outside the bundle", hint="Do not use it.")
    return found


def _refuse_codec(contract: Contract, where: str) -> None:
    """Refuse a codec that this edgekit does not have, or whose settings contradict themselves."""
    coding = contract.frames.coding if contract.frames else None
    if coding is None:
        return
    try:
        pick("codecs", coding.codec, what="codec").check(coding.settings)
    except RecipeError as error:
        raise VerificationError(f"{where}: {error.message}", hint="Fetch the bundle again.") from error


def inside(path: str) -> bool:
    """Return whether a path in a manifest stays inside the bundle."""
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\\" not in path
