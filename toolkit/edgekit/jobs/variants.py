"""Say which variants suit a device, and lower them; each is kept in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit.core import versions
from edgekit.core.digest import digest_file, digest_value, plain
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Network, QuantPlan
from edgekit.core.watch import watcher
from edgekit.forms.stored import restore, store
from edgekit.jobs.ask import Ask
from edgekit.lowering.protocol import Options
from edgekit.lowering.tensorrt import stand_in as written_stand_in
from edgekit.machine.probe import computes_bf16

# Style of lowerings whose weights keep 16-bit sums of old kernels from saturating.
NARROW = "narrow"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One variant to try."""

    backend: str
    precision: str
    style: str = ""
    threads: int = 0
    one_of_several: bool = False

    @property
    def name(self) -> str:
        """Its name while it is tried: style and threads included."""
        style = f"/{self.style}" if self.style else ""
        return f"{self.backend}-{self.precision}{style}@{self.threads}"

    @property
    def plain(self) -> str:
        """Its name in the bundle; thread counts stand in it where a recipe lists several."""
        tail = f"-{self.threads}-threads" if self.one_of_several else ""
        return f"{self.backend}-{self.precision}{tail}"


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A variant as its engine reads it.

    Attributes:
        wanted: What it is.
        artifact: Its files.
        digest: Over everything that made it.
        size_mb: Of its files, in 1e6 bytes.
    """

    wanted: Wanted
    artifact: Artifact
    digest: str
    size_mb: float


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What there is to lower.

    Attributes:
        float32: The float graph; plans belong to it.
        half: The same in fp16, where a pass made one.
        plan: Where a pass made one.
        dense: The float graph before the first pass that changed its outputs on purpose, None where none did.
        facts: Of each pass by name.
        folders: Where each pass wrote, by name.
    """

    float32: Network
    half: Network | None = None
    plan: QuantPlan | None = None
    dense: Network | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)


def wanted_for(ask: Ask, networks: Networks) -> list[Wanted]:
    """Return every variant that suits the device, float32 of each engine among them."""
    found = []
    for backend, precisions in ask.profile.backends.items():
        if ask.only_backend not in {"", backend} and not _fallback(ask, backend):
            continue
        if backend != "tensorrt" and not ask.has(backend):
            continue
        threads = _threads(ask, backend)
        extra = ["fp16"] if networks.half and backend == "onnxruntime" else []
        # float32 is the reference of its engine, whether or not a profile lists it.
        for precision in dict.fromkeys((*precisions, *extra, "fp32")):
            if _suits(ask, networks, backend, precision):
                styles = int8_styles(ask, backend) if precision == "int8" else ("",)
                found += [
                    Wanted(
                        backend=backend,
                        precision=precision,
                        style=s,
                        threads=t,
                        one_of_several=len(threads) > 1,
                    )
                    for s in styles
                    for t in threads
                ]
    return found


def int8_styles(ask: Ask, backend: str) -> tuple[str, ...]:
    """Return the styles of int8 that suit the device, the one that stands for all first.

    An x86 CPU without VNNI adds products in 16 bits: there the styles with weights of 7 bits are the only right ones.
    """
    styles: tuple[str, ...] = pick("lowering", backend, what="backend").styles
    narrow = tuple(s for s in styles if s == NARROW)
    if narrow and _saturates(ask):
        return narrow
    return tuple(s for s in styles if s != NARROW and ("bf16" not in s or _has_bf16(ask)))


def _saturates(ask: Ask) -> bool:
    """Whether int8 kernels of the machine that is measured lose high sums; of others nobody knows."""
    machine = ask.passport
    vnni = any("vnni" in flag or flag == "amx_int8" for flag in machine.get("isa", []))
    return ask.here and machine.get("arch") == "x86_64" and not vnni


def _has_bf16(ask: Ask) -> bool:
    return not ask.here or computes_bf16(ask.passport.get("isa", []))


def _fallback(ask: Ask, backend: str) -> bool:
    """A device whose engine is built there still needs something to run before that."""
    return ask.profile.builds_engines and backend == "onnxruntime"


def _threads(ask: Ask, backend: str) -> tuple[int, ...]:
    listed = ask.checked.recipe.bench.threads
    if backend == "tensorrt":
        return (0,)
    if not ask.here:
        # Not measured: leave the count to the engine on the device.
        return listed[:1] or (0,)
    return listed or (int(ask.passport["cores_physical"]),)


def _suits(ask: Ask, networks: Networks, backend: str, precision: str) -> bool:
    only = ask.only_precision
    if precision == "int8" and networks.plan is None:
        return False
    if precision == "bf16" and not _has_bf16(ask):
        return False
    if precision == "fp16" and backend != "tensorrt" and networks.half is None:
        return False
    # float32 stays in as the reference of its engine.
    return only in {"", precision} or precision == "fp32"


def lowered(ask: Ask, networks: Networks, wanted: Wanted) -> Lowered:
    """Return the variant, lowered; kept in the cache."""
    half = wanted.precision == "fp16" and wanted.backend != "tensorrt"
    network = networks.half if half and networks.half else networks.float32
    return lowered_from(ask, network, networks.plan, wanted)


def lowered_from(ask: Ask, network: Network, plan: QuantPlan | None, wanted: Wanted) -> Lowered:
    """Return one network with one plan as a variant; kept in the cache."""
    used = plan if wanted.precision == "int8" else None
    target = ask.target if wanted.backend == "tensorrt" else None
    wishes = _wishes(ask) if target else {}
    inputs = {
        "graphs": {n: g.sha256 for n, g in network.graphs.items()}, "contract": network.contract,
        "plan": used, "wanted": wanted, "wishes": wishes, "target": target, "code": versions.code(),
        "tools": versions.versions("onnx", wanted.backend),
    }  # fmt: skip

    def make(folder: Path) -> None:
        watcher().phase(f"lower {wanted.plain}")
        (folder / "files").mkdir()
        options = Options(
            precision=wanted.precision,
            threads=wanted.threads,
            style=wanted.style,
            wishes=wishes,
            target=target,
        )
        artifact = pick("lowering", wanted.backend, what="backend").lower(
            network, used, options, folder / "files"
        )
        named = replace(artifact, precision=wanted.precision, main=Path(artifact.main.name))
        store(folder / "artifact.json", named)

    folder = ask.cache.step("lower", inputs, make)
    artifact = restore(folder / "artifact.json", Artifact)
    artifact = replace(artifact, main=folder / "files" / artifact.main.name)
    size = sum(p.stat().st_size for p in artifact.folder.iterdir())
    return Lowered(wanted=wanted, artifact=artifact, digest=folder.name, size_mb=size / 1e6)


def _wishes(ask: Ask) -> dict[str, Any]:
    """Return what the device shall build, from the recipe."""
    words = {k: v for k, v in ask.checked.on(ask.profile.name).items() if k != "backend"}
    return {"device": ask.profile.name, "recipe": {k: words[k] for k in sorted(words)}}


def stand_in(ask: Ask, networks: Networks, wanted: Wanted) -> Lowered:
    """Return what onnxruntime runs here in the place of a TensorRT engine; equal files are one variant."""
    target = ask.target
    assert target
    used = networks.plan if wanted.precision == "int8" else None
    inputs = {
        "graphs": {n: g.sha256 for n, g in networks.float32.graphs.items()}, "plan": used, "wanted": wanted, "target": target,
        "code": versions.code(), "tools": versions.versions("onnx"), "contract": networks.float32.contract,
    }  # fmt: skip

    def make(folder: Path) -> None:
        (folder / "files").mkdir()
        options = Options(precision=wanted.precision, target=target)
        artifact = written_stand_in(networks.float32, used, options, folder / "files")
        store(folder / "artifact.json", replace(artifact, main=Path(artifact.main.name)))

    folder = ask.cache.step("stand-in", inputs, make)
    artifact = restore(folder / "artifact.json", Artifact)
    artifact = replace(artifact, main=folder / "files" / artifact.main.name)
    same = replace(wanted, backend="onnxruntime")
    size = artifact.main.stat().st_size / 1e6
    # Equal graphs behind other curves answer otherwise: how frames become codes belongs to what it is.
    frames, digest = artifact.contract.frames, digest_file(artifact.main)
    if frames and frames.coding:
        digest = digest_value([digest, plain(frames.coding)])
    return Lowered(wanted=same, artifact=artifact, digest=digest, size_mb=size)
