"""Say what TensorRT a Jetson has, and so in which dialect its ONNX file must be written.

Versions: NVIDIA's JetPack pages and release notes, the JetPack table of its DLA repository, and device logs
that quote them. TensorRT 11: its 11.4.1 release notes. Where a page was not seen the table says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.plugins import suggestion
from edgekit.devices.profiles import Profile


@dataclass(frozen=True, kw_only=True)
class JetPack:
    """One release: what it runs on and what comes with it."""

    name: str
    tensorrt: str
    cuda: str
    python: str
    modules: frozenset[str]


_XAVIER, _ORIN, _THOR = "Xavier", "Orin", "Thor"
# By compute capability, as `devices.yaml` has it.
_MODULES = {"7.2": _XAVIER, "8.7": _ORIN, "11.0": _THOR}
_OLD = {"tensorrt": "8.5.2", "cuda": "11.4", "python": "3.8", "modules": frozenset({_XAVIER, _ORIN})}
_SIX = {"cuda": "12.6", "python": "3.10", "modules": frozenset({_ORIN})}
_SEVEN = {"cuda": "13.0", "python": "3.12", "modules": frozenset({_THOR})}
_SEVEN_2 = {"cuda": "13.2", "python": "3.12", "modules": frozenset({_ORIN, _THOR})}
JETPACKS = {
    name: JetPack(name=name, **facts)  # type: ignore[arg-type]
    for name, facts in {
        "5.1": _OLD, "5.1.1": _OLD, "5.1.2": _OLD, "5.1.3": _OLD, "5.1.4": _OLD, "5.1.5": _OLD, "5.1.6": _OLD,
        "6.0": {**_SIX, "tensorrt": "8.6.2", "cuda": "12.2"},
        "6.1": {**_SIX, "tensorrt": "10.3.0"}, "6.2": {**_SIX, "tensorrt": "10.3.0"},
        "6.2.1": {**_SIX, "tensorrt": "10.3.0"},
        "7.0": {**_SEVEN, "tensorrt": "10.13"}, "7.1": {**_SEVEN, "tensorrt": "10.13"},
        "7.2": {**_SEVEN_2, "tensorrt": "10.16.2"}, "7.2.1": {**_SEVEN_2, "tensorrt": "10.16.2"},
        "7.2.2": {**_SEVEN_2, "tensorrt": "10.16.2"},
    }.items()
}  # fmt: skip
_USUAL = {_XAVIER: "5.1", _ORIN: "6.2", _THOR: "7.1"}
_KNOWN = ((8, 5), (8, 6), *((10, n) for n in range(17)), *((11, n) for n in range(5)))
DIALECTS = ("trt8", "trt10-strong", "trt10-weak", "trt11", "dla-cal")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What an engine is built for.

    Attributes:
        device: Name of the profile.
        jetpack: Release, such as "6.2"; empty where only TensorRT was named.
        tensorrt: Version of TensorRT there.
        compute_capability: Of the GPU.
        sm: Streaming multiprocessors of the GPU, 0 where unknown.
        dialect: Which way of writing the ONNX file, of `DIALECTS`.
        dla: Core of the deep-learning accelerator, None for the GPU.
        assumed: Whether the release is the usual one, because none was named.
    """

    device: str
    jetpack: str
    tensorrt: str
    compute_capability: str
    sm: int
    dialect: str
    dla: int | None = None
    assumed: bool = False

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of TensorRT."""
        return version_of(self.tensorrt)

    @property
    def words(self) -> str:
        """For people: release, TensorRT, dialect."""
        pack = f"JetPack {self.jetpack}, " if self.jetpack else ""
        unit = f", DLA {self.dla}" if self.dla is not None else ""
        return f"{pack}TensorRT {self.tensorrt}{unit}, dialect {self.dialect}"


def version_of(text: str) -> tuple[int, int]:
    """Return major and minor version in a text such as "10.3.0".

    Raises:
        RecipeError: It is none, or none that edgekit knows.
    """
    parts = text.split(".")
    try:
        found = (int(parts[0]), int(parts[1]))
    except (IndexError, ValueError):
        raise RecipeError(f"--tensorrt: {text!r} is no version", hint="Write it as 10.3 or 8.6.2.") from None
    if found not in _KNOWN:
        raise RecipeError(
            f"TensorRT {text} is not known to edgekit",
            hint="It writes for 8.5, 8.6, 10.0 to 10.16 and 11.0 to 11.4.",
        )
    return found


def target_for(
    profile: Profile, *, jetpack: str = "", tensorrt: str = "", dla: int | None = None, weak: bool = False
) -> Target:
    """Return what an engine for a device is built for.

    Args:
        profile: A device with TensorRT.
        jetpack: Release; empty takes the usual one of the module.
        tensorrt: Version; empty takes that of the release.
        dla: Core of the deep-learning accelerator, None for the GPU.
        weak: Leave the types to TensorRT 10's flags instead of writing them into the graph.

    Raises:
        RecipeError: The device has no TensorRT, the release does not run on it, TensorRT of that version does
            not exist there, or it has no accelerator that this TensorRT can use.
    """
    if "tensorrt" not in profile.backends:
        raise RecipeError(
            f"{profile.name}: has no TensorRT", hint="--jetpack, --tensorrt and --dla go with a Jetson."
        )
    capability, sm = _fact(profile, "compute_capability"), _fact(profile, "gpu_sm")
    module = _MODULES.get(capability, "")
    pack = _pack(profile, module, jetpack, tensorrt)
    version = tensorrt or (pack.tensorrt if pack else "10.3.0")
    found = version_of(version)
    _refuse_version(profile, pack, found, asked=bool(tensorrt))
    dialect = {8: "trt8", 10: "trt10-weak" if weak else "trt10-strong", 11: "trt11"}[found[0]]
    if weak and found[0] != 10:
        only = "strongly" if found[0] == 11 else "weakly"
        raise RecipeError(
            f"--weak: TensorRT {found[0]} knows {only} typed networks only", hint="Leave it out."
        )
    if dla is not None:
        _refuse_dla(profile, found, dla, pack)
        dialect = "trt11" if found[0] == 11 else "dla-cal"
    return Target(
        device=profile.name, jetpack=pack.name if pack else "", tensorrt=version, compute_capability=capability,
        sm=int(sm or 0), dialect=dialect, dla=dla, assumed=not (jetpack or tensorrt),
    )  # fmt: skip


def _fact(profile: Profile, key: str) -> str:
    return next((f.value for f in profile.facts if f.key == key), "")


def _pack(profile: Profile, module: str, jetpack: str, tensorrt: str) -> JetPack | None:
    if not jetpack:
        # A version alone says enough; a release that brings it would only be a guess.
        return None if tensorrt or not module else JETPACKS[_USUAL[module]]
    if jetpack not in JETPACKS:
        raise RecipeError(f"--jetpack: no release {jetpack!r}", hint=suggestion(jetpack, JETPACKS))
    pack = JETPACKS[jetpack]
    if module not in pack.modules:
        fits = [n for n, p in JETPACKS.items() if module in p.modules]
        runs_on = " and ".join(sorted(pack.modules))
        raise RecipeError(
            f"{profile.name}: JetPack {jetpack} does not run on it, only on modules with {runs_on}",
            hint=f"It has {', '.join(fits)}."
            if fits
            else "edgekit knows no JetPack for it; name --tensorrt.",
        )
    return pack


def _refuse_version(profile: Profile, pack: JetPack | None, found: tuple[int, int], *, asked: bool) -> None:
    """Refuse a TensorRT that does not exist on the release or module."""
    if not asked or not pack:
        if found[0] == 11:
            _refuse_eleven(profile)
        return
    if found[0] != 11:
        own = version_of(pack.tensorrt)
        if found != own and not (found == (10, 7) and pack.name.startswith("6.2")):
            raise RecipeError(
                f"--tensorrt: JetPack {pack.name} comes with {pack.tensorrt}, not {found[0]}.{found[1]}",
                hint="Leave out one of --jetpack and --tensorrt.",
            )
        return
    _refuse_eleven(profile)
    if pack.name != "7.2.2":
        why = (
            "boards on JetPack 6 stay on 10.x"
            if pack.name.startswith("6")
            else "it needs JetPack 7.2.2 or later"
        )
        raise RecipeError(
            f"--tensorrt: JetPack {pack.name} has no TensorRT 11: {why}",
            hint="Leave out --tensorrt, or name --jetpack 7.2.2.",
        )


def _refuse_eleven(profile: Profile) -> None:
    named = profile.published.startswith(("jetson-agx-orin", "jetson-agx-thor"))
    if not named:
        raise RecipeError(
            f"{profile.name}: TensorRT 11 is supported on Jetson AGX Orin and Thor alone, as far as NVIDIA's notes of 11.4.1 say",
            hint="Leave out --tensorrt.",
        )


def _refuse_dla(profile: Profile, found: tuple[int, int], core: int, pack: JetPack | None) -> None:
    count = int(_fact(profile, "dla_count") or 0)
    if not count:
        raise RecipeError(f"{profile.name}: has no DLA", hint="Leave out --dla.")
    if not 0 <= core < count:
        raise RecipeError(
            f"--dla: {core} is no core of {profile.name}, it has 0 to {count - 1}", hint="Take 0."
        )
    if found[0] == 8 or found <= (10, 7):
        return
    if found[0] == 10:
        name = (
            f"JetPack {pack.name} has TensorRT {found[0]}.{found[1]}"
            if pack
            else f"TensorRT {found[0]}.{found[1]}"
        )
        raise RecipeError(
            f"--dla: {name}: DLA support ended with TensorRT 10.7 and came back with 11.4.1",
            hint="Leave out --dla, or build with JetPack 6.2 or TensorRT 11.4.1.",
        )
    if found < (11, 4) or not profile.published.startswith("jetson-agx-orin"):
        raise RecipeError(
            f"--dla: TensorRT 11 uses the DLA from 11.4.1 on, and on Jetson AGX Orin alone; {profile.name} with {found[0]}.{found[1]} is not that",
            hint="Leave out --dla, or build with JetPack 6.2.",
        )


def own_release(passport: Mapping[str, Any]) -> tuple[str, str]:
    """Return JetPack release and TensorRT version that a probed board has, each empty where unknown.

    A TensorRT that did not come with the release stands alone.
    """
    release, version = str(passport.get("jetpack", "")), passport.get("engines", {}).get("tensorrt", "")
    if release not in JETPACKS:
        return "", version
    usual = JETPACKS[release].tensorrt
    return (release, "") if not version or version.split(".")[:2] == usual.split(".")[:2] else ("", version)
