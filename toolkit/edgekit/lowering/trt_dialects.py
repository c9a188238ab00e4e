"""Write a network the way one version of TensorRT reads it: ONNX in, ONNX and build options out.

Precision lives in the graph wherever the version allows it; flags of weak typing stand only where it needs
them. What each dialect is: docs/jetson.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.core.records import QuantPlan
from edgekit.devices.jetpacks import Target
from edgekit.graph.onnx_file import arrays_of
from edgekit.graph.strong import FULL, SCALE_FLOOR, strongly_typed
from edgekit.lowering.qdq import Style, write_qdq
from edgekit.lowering.trt_cache import calibration_text
from edgekit.lowering.trt_dla import left_to_gpu
from edgekit.lowering.trt_rewrites import int32_inputs, int32_outputs, without_layer_norm

# TensorRT 8 reads up to 17; scales in fp16 came with 19.
_OLD_OPSET, _HALF_SCALES_OPSET = 17, 19
# What TensorRT fuses: symmetric, inputs of convolutions and of additions, no output of an activation.
_STYLE = Style(unsigned=False, adds=True, floor=SCALE_FLOOR, restate=True)


@dataclass(frozen=True, kw_only=True)
class Written:
    """One dialect of one network.

    Attributes:
        model: ModelProto that TensorRT reads.
        options: Of the build, as `build.json` has them.
        texts: Further files by name.
        judged: ModelProto that computes the same sums in onnxruntime; None where `model` itself does.
    """

    model: Any
    options: dict[str, Any]
    texts: dict[str, str] = field(default_factory=dict)
    judged: Any = None


def write(model: Any, plan: QuantPlan | None, precision: str, target: Target) -> Written:
    """Return `model` in the dialect of `target`.

    Args:
        model: A float32 ModelProto, static shapes, named nodes.
        plan: Ranges and int8 layers; needed for int8 alone.
        precision: fp32, fp16 or int8.
        target: What the engine is built for.

    Raises:
        RecipeError: int8 without a plan, or the file's opset cannot be brought to what this version reads.
    """
    if precision == "int8" and plan is None:
        raise RecipeError("int8 needs a quantize pass", hint="Add `quantize-int8` to passes.")
    used = plan if precision == "int8" else None
    return _DIALECTS[target.dialect](model, used, precision, target)


def _weak(model: Any, plan: QuantPlan | None, precision: str, target: Target) -> Written:
    """float32 tensors and scales, int8 as Q/DQ, and flags that allow the rest to run in fp16."""
    plainer = _for_weak(model, target)
    done = write_qdq(plainer, plan, _STYLE_OF_OLD) if plan else plainer
    # int8 alone would leave all that is not quantized in float32: slower than fp16 throughout.
    flags = {"fp32": [], "fp16": ["FP16"], "int8": ["FP16", "INT8"]}[precision]
    options: dict[str, Any] = {"strongly_typed": False, "flags": flags}
    # What the typed dialects keep in float32, and what this file is judged with, is float32 here, too.
    full = sorted(n.name for n in done.graph.node if n.op_type in FULL and n.name)
    if flags and full:
        options |= {"precision_constraints": "prefer", "layer_precisions": dict.fromkeys(full, "fp32")}
    return Written(model=done, options=options)


def _strong(model: Any, plan: QuantPlan | None, precision: str, target: Target) -> Written:
    """fp16 tensors and scales, casts at the ends: the types in the graph are those that run."""
    if plan:
        model = write_qdq(to_opset(model, _HALF_SCALES_OPSET, at_least=True), plan, _STYLE)
    done = model if precision == "fp32" else strongly_typed(model)
    # The DLA has no float32; the reference runs on the GPU.
    on_dla = _on_dla(done, target) if target.dla is not None and precision != "fp32" else {}
    return Written(model=done, options={"strongly_typed": True, "flags": [], **on_dla})


def _dla(model: Any, plan: QuantPlan | None, precision: str, target: Target) -> Written:
    """No Q/DQ, which the DLA does not know up to TensorRT 10.7: scales go into a calibration cache."""
    plainer = _for_weak(model, target)
    options: dict[str, Any] = {"strongly_typed": False, "flags": ["FP16"], **_on_dla(plainer, target)}
    if precision == "fp32":
        # The DLA has none; the reference runs on the GPU.
        return _weak(model, plan, precision, target)
    if plan is None:
        return Written(model=plainer, options=options)
    # Only what Q/DQ would quantize gets a scale, and all else is held in fp16: then the graph that is judged with
    # Q/DQ computes what implicit int8 is asked for.
    judged = write_qdq(plainer, plan, _STYLE_OF_OLD)
    scales = _activation_scales(judged, {o for n in plainer.graph.node for o in n.output})
    floats = sorted(n.name for n in plainer.graph.node if not scales.keys() & set(n.input))
    options |= {
        "flags": ["FP16", "INT8"], "calibration": "calib.cache", "precision_constraints": "prefer",
        "layer_precisions": dict.fromkeys(floats, "fp16"),
    }  # fmt: skip
    text = calibration_text(scales, target.tensorrt)
    return Written(model=plainer, options=options, texts={"calib.cache": text}, judged=judged)


def _on_dla(model: Any, target: Target) -> dict[str, Any]:
    """Return the options that put a model on the accelerator, and what is left of it to the GPU."""
    left = left_to_gpu(model)
    return {"dla_core": target.dla, "gpu_fallback": True, **({"gpu_layers": left} if left else {})}


def _activation_scales(model: Any, made: set[str]) -> dict[str, float]:
    """Return the scale of each activation that a graph quantizes, of inputs and those that the float graph made."""
    arrays = arrays_of(model)
    own = made | {i.name for i in model.graph.input}
    rows = (
        n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in own - arrays.keys()
    )
    return {n.input[0]: float(arrays[n.input[1]].max()) for n in rows}


_STYLE_OF_OLD = replace(_STYLE, float_weights=True)
_DIALECTS: dict[str, Callable[[Any, QuantPlan | None, str, Target], Written]] = {
    "trt8": _weak, "trt10-weak": _weak, "trt10-strong": _strong, "trt11": _strong, "dla-cal": _dla,
}  # fmt: skip


def _for_weak(model: Any, target: Target) -> Any:
    """Return what every version from 8.5 on reads: opset 17, no INT64 outputs before 10."""
    done = to_opset(model, _OLD_OPSET, at_least=False)
    if target.version < (8, 6):
        done = int32_inputs(without_layer_norm(done))
    return int32_outputs(done) if target.version < (10, 0) else done


def to_opset(model: Any, opset: int, *, at_least: bool) -> Any:
    """Return `model` at an opset, as it is where it already is at least (or at most) there.

    Raises:
        RecipeError: onnx knows no way for one of its operators.
    """
    onnx = need("onnx", extra="host")
    own = next(o.version for o in model.opset_import if o.domain in {"", "ai.onnx"})
    if own == opset or (own > opset) == at_least:
        return model
    converter = need("onnx.version_converter", extra="host")
    try:
        return onnx.shape_inference.infer_shapes(converter.convert_version(model, opset))
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"opset {own} cannot be brought to {opset}: {str(error).splitlines()[0][:160]}",
            hint=f"Export the model at opset {opset}.",
        ) from error
