"""Say a build as trtexec's command line, for boards where that is all there is (JetPack 5 has Python 3.8).

Flags are those of each version's help as published texts quote it, --layerDeviceTypes from memory: 8.5 has --buildOnly and no optimization level; 8.6 renamed it
--skipInference; 10 has --stronglyTyped; 11 has no precision flags and no calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.core.errors import RecipeError

_COMMON = frozenset({
    "--onnx", "--saveEngine", "--memPoolSize", "--timingCacheFile", "--profilingVerbosity", "--exportLayerInfo", "--useDLACore",
    "--allowGPUFallback", "--sparsity",
})  # fmt: skip
_WEAK = frozenset({"--fp16", "--int8", "--calib", "--precisionConstraints", "--layerPrecisions"})
_LEVEL = frozenset({"--skipInference", "--builderOptimizationLevel", "--layerDeviceTypes"})
FLAGS = {
    "8.5": _COMMON | _WEAK | {"--buildOnly"}, "8.6": _COMMON | _WEAK | _LEVEL, "10": _COMMON | _WEAK | _LEVEL | {"--stronglyTyped"},
    "11": _COMMON | _LEVEL | {"--stronglyTyped"},
}  # fmt: skip
PLACES = ("trtexec", "/usr/src/tensorrt/bin/trtexec")


def flags_of(version: tuple[int, int]) -> frozenset[str]:
    """Return the flags that edgekit uses and a version's trtexec knows."""
    return FLAGS[f"{version[0]}.{version[1]}" if version[0] == 8 else str(version[0])]


def command(
    entry: Mapping[str, Any], version: tuple[int, int], *, folder: str, engine: str, timing_cache: str = "", layers: str = "",
    workspace_mb: int = 0, trtexec: str = "trtexec",
) -> list[str]:  # fmt: skip
    """Return the words that build one entry of build.json.

    Args:
        entry: One of `builds`.
        version: Major and minor version of the board's TensorRT.
        folder: Of the ONNX files, on the board.
        engine: File to write.
        timing_cache: File shared between builds.
        layers: File for the layer information.
        workspace_mb: 0 for the entry's own.
        trtexec: Where it is.

    Raises:
        RecipeError: The entry needs a flag that this version's trtexec does not know.
    """
    known = flags_of(version)
    words = [
        f"--onnx={folder}/{entry['model']}", f"--saveEngine={engine}",
        f"--memPoolSize=workspace:{workspace_mb or entry.get('workspace_mb', 1024)}", "--profilingVerbosity=detailed",
        "--skipInference" if "--skipInference" in known else "--buildOnly",
    ]  # fmt: skip
    words += (
        [f"--builderOptimizationLevel={entry.get('builder_level', 3)}"]
        if "--builderOptimizationLevel" in known
        else []
    )
    words += ["--stronglyTyped"] if entry.get("strongly_typed") else []
    words += [f"--{flag.lower()}" for flag in entry.get("flags", ())]
    words += [f"--useDLACore={entry['dla_core']}"] if entry.get("dla_core") is not None else []
    words += ["--allowGPUFallback"] if entry.get("gpu_fallback") else []
    words += [f"--calib={folder}/{entry['calibration']}"] if entry.get("calibration") else []
    words += _precisions(entry)
    left = entry.get("gpu_layers") or ()
    words += [f"--layerDeviceTypes={_spec(dict.fromkeys(left, 'GPU'))}"] if left else []
    words += ["--sparsity=enable"] if entry.get("sparse") else []
    words += [f"--timingCacheFile={timing_cache}"] if timing_cache else []
    words += [f"--exportLayerInfo={layers}"] if layers else []
    for word in words:
        if word.partition("=")[0] not in known:
            raise RecipeError(
                f"trtexec of TensorRT {version[0]}.{version[1]} has no {word.partition('=')[0]}",
                hint="Compile for the board's own version: --jetpack or --tensorrt.",
            )
    return [trtexec, *words]


def _precisions(entry: Mapping[str, Any]) -> list[str]:
    wanted = entry.get("layer_precisions") or {}
    if not wanted:
        return []
    return [
        f"--precisionConstraints={entry.get('precision_constraints', 'prefer')}",
        f"--layerPrecisions={_spec(wanted)}",
    ]


def _spec(wanted: Mapping[str, str]) -> str:
    """Return layers with a word each, as trtexec takes them."""
    for name in wanted:
        if any(c in name for c in ",:*"):
            raise RecipeError(
                f"trtexec cannot name layer {name!r}: it has a comma, colon or star",
                hint="Build with build_engine.py.",
            )
    return ",".join(f"{name}:{kind}" for name, kind in sorted(wanted.items()))
