"""Build, list and clear TensorRT engines: on the board that this runs on, or on one that the host reaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.backends import engines
from edgekit.bundle.manifest import Variant
from edgekit.bundle.read import Bundle, open_bundle
from edgekit.core.digest import plain
from edgekit.core.errors import MissingError, RecipeError
from edgekit.core.records import Artifact
from edgekit.core.watch import watcher
from edgekit.devices.connect import agent_of
from edgekit.devices.profiles import one_of
from edgekit.jobs.engine_trtexec import built_by_trtexec
from edgekit.jobs.orders import new_order
from edgekit.machine.probe import passport
from edgekit.measure.golden import tester
from edgekit.plans.diffusion import NETWORK

_LIMIT_S = 3600.0
_GOLDEN = "golden"


def built(
    path: Path, *, device: str = "", variant: str = "", limit_s: float = _LIMIT_S, wait: bool = False
) -> dict[str, Any]:
    """Build the engine of a bundle's TensorRT variant, or find it in the board's cache; return what is known of it.

    A pipeline has one engine a part: what is known of the others stands under "parts", by name.

    Args:
        path: Bundle folder or `.ekb`.
        device: Name of a board that is reached over its connection; empty for this one.
        variant: Name of the variant; the first with an engine to build where empty.
        limit_s: Longest time of one attempt.
        wait: Wait for a board that is taken.

    Raises:
        RecipeError: No bundle, or none of its variants is TensorRT's.
        MissingError: No driver or no TensorRT there.
        ContractError: Nothing could be built; every attempt is named.
        DeviceError: The board does not answer.
    """
    bundle = open_bundle(path)
    try:
        chosen = _variant(bundle.manifest.variants, variant, path)
        parts = {}
        for name, (artifact, golden) in _to_build(bundle, chosen).items():
            if device:
                parts[name] = _on_board(device, artifact, golden, limit_s=limit_s, wait=wait)
            else:
                power, test = str(passport().get("power_mode", "")), tester(artifact.contract, golden)
                parts[name] = engines.built(artifact.folder, power_mode=power, limit_s=limit_s, test=test)
    finally:
        bundle.close()
    return {**parts.pop(NETWORK), "parts": parts, "variant": chosen.name}


def _to_build(bundle: Bundle, variant: Variant) -> dict[str, tuple[Artifact, Path]]:
    """Return by part what an engine is built of, and its golden frames; a model that is one file is its "main"."""
    golden = bundle.folder / _GOLDEN
    if not variant.plan:
        return {NETWORK: (variant.artifact(bundle.folder, bundle.manifest.contract), golden)}
    found = {}
    for place in variant.builds(bundle.folder):
        file = (place / str(engines.builds_in(place)[0]["model"])).relative_to(bundle.folder)
        artifact = variant.artifact(bundle.folder, engines.contract_in(place), segment=str(file))
        found[place.name] = (artifact, golden / place.name)
    return found


def _on_board(device: str, artifact: Artifact, golden: Path, *, limit_s: float, wait: bool) -> dict[str, Any]:
    """Build on a reachable board: by its agent, by its trtexec where its Python is too old for that."""
    profile = one_of(device)
    agent = agent_of(profile)
    try:
        agent.install()
    except MissingError as error:
        watcher().note(f"{error.message}: building with the board's own trtexec")
        return built_by_trtexec(profile.name, agent.connection, artifact.folder, limit_s=limit_s)
    sources = {f"0/{p.name}": p for p in sorted(artifact.folder.iterdir())}
    sources |= {f"{_GOLDEN}/{p.name}": p for p in sorted(golden.glob("*"))}
    sent = plain(replace(artifact, main=Path("0") / artifact.main.name))
    return _asked(
        device, sources, {"what": "build", "limit_s": limit_s, "entrants": {"main": sent}}, wait=wait
    )


def _asked(device: str, sources: dict[str, Path], settings: dict[str, Any], *, wait: bool) -> dict[str, Any]:
    profile = one_of(device)
    order = new_order("engine", profile.name, sources, settings={"entrants": {}, **settings})
    return agent_of(profile).done(order, sources, wait=wait)


def _variant(variants: tuple[Variant, ...], name: str, path: Path) -> Variant:
    ours = [v for v in variants if v.engine == "build-on-device"]
    found = [v for v in ours if name in {"", v.name}]
    if not found:
        names = ", ".join(v.name for v in ours) or "none"
        raise RecipeError(
            f"{path}: has no variant {name!r} to build an engine of", hint=f"There are: {names}."
        )
    return found[0]


def listed(device: str = "") -> list[dict[str, Any]]:
    """Return what is known of every engine in the cache, here or on a board."""
    if not device:
        return [e.facts() for e in engines.listed()]
    found: list[dict[str, Any]] = _asked(device, {}, {"what": "list"}, wait=True)["engines"]
    return found


def cleared(keys: tuple[str, ...], device: str = "") -> int:
    """Remove engines by the beginnings of their keys, all where none is given; return how many.

    Raises:
        RecipeError: There is none of a key.
    """
    if not device:
        return engines.clear(keys)
    return int(_asked(device, {}, {"what": "clear", "keys": list(keys)}, wait=True)["removed"])
