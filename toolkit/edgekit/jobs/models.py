"""List the catalogue and count its models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.export.torch_onnx import to_onnx
from edgekit.graph.cost import cost_of
from edgekit.graph.half import restore_half
from edgekit.graph.onnx_file import inputs_of, read_onnx
from edgekit.graph.static import fix_shapes, slim
from edgekit.models.architectures import architectures, is_ours, own_options
from edgekit.models.classifiers import WHAT
from edgekit.models.find import families, find_by_name, find_by_path, shipped_models
from edgekit.models.pipelines import read_pipeline, shipped_pipelines
from edgekit.models.records import Source
from edgekit.models.small import SMALL
from edgekit.models.weights import read_header

# Where nobody says how many classes.
_CLASSES = 6
_HOW = "GFLOPs are 2 x multiply-adds of convolutions and matrix products; parameters are elements of weights"


def listed() -> list[dict[str, str]]:
    """Return name, kind and needs of every model of the catalogue."""
    ours = [{"name": n, "what": _trained(p), "needs": "edgekit[host]"} for n, p in shipped_models().items()]
    small = [
        {"name": n, "what": f"classifier, {x.what}", "needs": "edgekit[train]"} for n, x in SMALL.items()
    ]
    pictures = [{"name": n, "what": f"classifier, {w}", "needs": "edgekit[train]"} for n, w in WHAT.items()]
    painters = [
        {
            "name": n,
            "what": f"diffusion pipeline, {read_pipeline(p).conditions}-conditional",
            "needs": "edgekit[diffusion]",
        }
        for n, p in shipped_pipelines().items()
    ]
    return [*ours, *painters, *small, *pictures] + [
        {
            "name": n,
            "what": ("light detector" if n in architectures() else "ultralytics' architecture") + _options(n),
            "needs": "edgekit[train]",
        }
        for n in families()
    ]


def _trained(path: Path) -> str:
    header = read_header(path.with_suffix(".safetensors"))
    return f"{header.architecture} with weights: {', '.join(header.classes)}"


def _options(name: str) -> str:
    if not is_ours(name):
        return ""
    return f" (options: {', '.join(own_options(name))})"


def _counted_small(source: Source) -> dict[str, Any]:
    """Return what a small classifier takes on signals of its usual shape."""
    from edgekit.models.torch_models import build

    shape, nc = SMALL[source.what].usual, int(source.settings["nc"]) or _CLASSES
    settings = {**source.settings, "shape": list(shape), "nc": nc}
    module = build(replace(source, settings=settings)).module
    cost = cost_of(slim(to_onnx(module, (1, *shape), opset=17, input_name="signal"), where=source.what))
    return {
        "name": source.what, "signal": list(shape), "nc": nc,
        "params_fused": cost.params, "gflops_fused": round(cost.gflops, 5),
        "counted": f"{_HOW}, of the exported graph",
    }  # fmt: skip


def _counted_pictures(source: Source, imgsz: int) -> dict[str, Any]:
    """Return what an image classifier takes, counted on its exported graph."""
    from edgekit.models.torch_models import build

    side = int(source.settings["options"].get("side", imgsz))
    module = build(source).module
    cost = cost_of(slim(to_onnx(module, (1, 3, side, side), opset=17), where=source.what))
    return {
        "name": source.what, "imgsz": side, "nc": source.settings["nc"], "options": source.settings["options"],
        "params_fused": cost.params, "gflops_fused": round(cost.gflops, 5), "counted": f"{_HOW}, of the exported graph",
    }  # fmt: skip


def counted(name: str, *, nc: int, imgsz: int) -> dict[str, Any]:
    """Return what a model takes, and how it was counted.

    Raises:
        RecipeError: The catalogue has no such name, or the arguments do not fit it.
        MissingError: An architecture was asked for without edgekit[train].
    """
    if imgsz < 32 or imgsz % 32:
        raise RecipeError(f"--imgsz: {imgsz} is no multiple of 32 from 32 up", hint="Take 640.")
    source = find_by_path(Path(name), trust=False) if name.endswith(".onnx") else find_by_name(name, nc=nc)
    if source.kind == "onnx":
        assert source.path
        if nc:
            raise RecipeError(f"--nc: {name} is trained, its classes are fixed", hint="Leave --nc out.")
        graph = restore_half(read_onnx(source.path))
        free = any(-1 in s.shape[2:] for s in inputs_of(graph))
        cost = cost_of(fix_shapes(graph, imgsz=imgsz if free else 0, where=name))
        return {
            "name": name, "imgsz": imgsz if free else inputs_of(graph)[0].shape[-1], "params_fused": cost.params, "gflops_fused": round(cost.gflops, 3),
            "counted": f"{_HOW}; an ONNX graph is counted as it is, normally fused",
        }  # fmt: skip
    if source.kind == "small":
        return _counted_small(source)
    if source.kind == "classifier":
        return _counted_pictures(source, imgsz)
    # torch takes a second to load; an ONNX file never needs it.
    from edgekit.models.torch_models import counts

    found = counts(source, imgsz=imgsz)
    return {
        "name": name,
        "imgsz": imgsz,
        "nc": source.settings["nc"],
        "options": source.settings["options"],
        **found,
        "counted": f"{_HOW}, by ultralytics' own counter (thop)",
    }
