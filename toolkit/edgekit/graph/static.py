"""Give a graph static shapes and fold what has become constant."""

from __future__ import annotations

from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.graph.onnx_file import inputs_of


def fix_shapes(model: Any, *, imgsz: int, where: str) -> Any:
    """Return `model` with batch 1 and, for an image input, the asked size; constants are folded.

    Args:
        model: A ModelProto; changed in place before it is folded.
        imgsz: Side of the image in pixels; 0 keeps static sizes and takes 640 for dynamic ones.
        where: File, for messages.

    Raises:
        RecipeError: The size is fixed in the file and another one was asked for, or an input has a
            dimension that nothing tells.
    """
    dynamic = False
    for spec, value in zip(inputs_of(model), _real_inputs(model), strict=True):
        image = len(spec.shape) == 4 and spec.shape[1] in {1, 3}
        for axis, size in enumerate(spec.shape):
            wanted = _wanted(axis, size, image=image, imgsz=imgsz)
            if wanted < 1:
                raise RecipeError(
                    f"{where}: input {spec.name!r} has a free dimension {axis} in {spec.shape}",
                    hint="Export the model with static shapes.",
                )
            if wanted == size:
                continue
            if size > 0:
                raise RecipeError(
                    f"{where}: input {spec.name!r} is fixed at {size} px, {wanted} was asked for",
                    hint="Export the model at that size, or with dynamic height and width.",
                )
            value.type.tensor_type.shape.dim[axis].dim_value = wanted
            dynamic = True
    return slim(model, where=where) if dynamic else model


def _wanted(axis: int, size: int, *, image: bool, imgsz: int) -> int:
    if axis == 0:
        return size if size > 0 else 1
    if image and axis in {2, 3}:
        return imgsz or (size if size > 0 else 640)
    return size


def _real_inputs(model: Any) -> list[Any]:
    stored = {i.name for i in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in stored]


def slim(model: Any, *, where: str) -> Any:
    """Return `model` with constants folded and needless nodes gone (onnxslim).

    Raises:
        RecipeError: onnxslim cannot work on it.
    """
    onnxslim = need("onnxslim", extra="host", why="simplify")
    onnx = need("onnx", extra="host")
    for value in list(model.graph.output):
        if value.type.tensor_type.HasField("shape") and any(
            not d.HasField("dim_value") for d in value.type.tensor_type.shape.dim
        ):
            value.type.tensor_type.ClearField("shape")
    try:
        slimmed = onnxslim.slim(model, verbose=False)
        return onnx.shape_inference.infer_shapes(slimmed, data_prop=True)
    except (RuntimeError, ValueError, KeyError, onnx.shape_inference.InferenceError) as error:
        raise RecipeError(
            f"{where}: cannot be simplified: {str(error).splitlines()[0][:200]}",
            hint="Export the model with static shapes, and leave out the simplify pass.",
        ) from error
