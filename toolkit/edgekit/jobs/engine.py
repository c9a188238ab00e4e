"""Build, list and clear TensorRT engines on the board that this runs on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.backends import engines
from edgekit.bundle.manifest import Variant
from edgekit.bundle.read import open_bundle
from edgekit.core.errors import RecipeError
from edgekit.machine.probe import passport


def built(path: Path, *, variant: str = "", limit_s: float = 3600.0) -> dict[str, Any]:
    """Build the engine of a bundle's TensorRT variant on this board, or find it in the cache.

    Args:
        path: Bundle folder or `.ekb`.
        variant: Name of the variant; the first that TensorRT runs where empty.
        limit_s: Longest time of one attempt.

    Raises:
        RecipeError: No bundle, or none of its variants is TensorRT's.
        MissingError: No driver or no TensorRT here.
        ContractError: Nothing could be built; every attempt is named.
    """
    bundle = open_bundle(path)
    try:
        chosen = _variant(bundle.manifest.variants, variant, path)
        board = engines.probed()
        power = str(passport().get("power_mode", ""))
        board = engines.Board(**{**vars(board), "power_mode": power})
        found = engines.ensure((bundle.folder / chosen.main).parent, board, limit_s=limit_s)
    finally:
        bundle.close()
    return {
        **_facts(found),
        "variant": chosen.name,
        "fresh": found.fresh,
        "warning": engines.same_power(found, board),
    }


def _variant(variants: tuple[Variant, ...], name: str, path: Path) -> Variant:
    ours = [v for v in variants if v.engine == "build-on-device"]
    found = [v for v in ours if name in {"", v.name}]
    if not found:
        names = ", ".join(v.name for v in ours) or "none"
        raise RecipeError(
            f"{path}: has no variant {name!r} to build an engine of", hint=f"There are: {names}."
        )
    return found[0]


def listed() -> list[dict[str, Any]]:
    """Return what is known of every engine in the cache."""
    return [_facts(e) for e in engines.listed()]


def cleared(keys: tuple[str, ...]) -> int:
    """Remove engines by the beginning of their keys, all where none is given; return how many."""
    known = engines.listed()
    for key in keys:
        if not any(e.key.startswith(key) for e in known):
            raise RecipeError(f"no engine {key!r}", hint="See `edgekit engine list`.")
    return engines.clear(keys)


def _facts(one: engines.Engine) -> dict[str, Any]:
    meta = one.meta
    return {
        "key": one.key, "precision": one.precision, "model": meta["model"], "mb": round(meta["bytes"] / 1e6, 2),
        "tensorrt": meta["tensorrt"], "gpu": meta["board"]["gpu"], "when": meta["when"], "seconds": meta["seconds"],
        "attempts": list(meta["attempts"]), "plan": str(one.plan),
    }  # fmt: skip
