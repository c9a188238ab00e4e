"""Store float32 weights in int8 inside an ONNX file, computing in float32, and bring them back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need

# Operators with weights, and which of their inputs these are.
_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "Gather": 0}
_LEAST = 1024
_INT8, _SCALE, _FLOAT = "::int8", "::int8::scale", "::int8::float"
_ONNX_FLOAT = 1


def store_int8(model: Any) -> int:
    """Store weights of `model` in int8, symmetric, one scale an output channel (a row of a table); return how many.

    Each stands behind a Cast and a Mul: engines fold them when they open the file (onnxruntime), or keep the weights
    small in memory, too (OpenVINO). Smaller tensors than 1,024 values, biases and norms stay as they are.

    Args:
        model: A float32 ModelProto, changed in place.
    """
    numpy_helper, helper = need("onnx.numpy_helper", extra="host"), need("onnx.helper", extra="host")
    axes = dict(_axes(model))
    nodes, scales = [], []
    for stored in model.graph.initializer:
        name = stored.name
        if name not in axes:
            continue
        values, scale = rounded(numpy_helper.to_array(stored), axes[name])
        stored.CopyFrom(numpy_helper.from_array(values, name + _INT8))
        scales.append(numpy_helper.from_array(scale, name + _SCALE))
        nodes += [
            helper.make_node("Cast", [name + _INT8], [name + _FLOAT], name=f"{name}{_FLOAT}", to=_ONNX_FLOAT),
            helper.make_node("Mul", [name + _FLOAT, name + _SCALE], [name], name=f"{name}{_SCALE}"),
        ]
    # Old files list weights among the inputs, too.
    given = [i for i in model.graph.input if i.name not in axes]
    del model.graph.input[:]
    model.graph.input.extend(given)
    model.graph.initializer.extend(scales)
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return len(scales)


def rounded(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight in steps of its scale, from -127 to 127, and the scales, which broadcast to it.

    Args:
        weight: Of any rank.
        axis: Each index of it has a scale of its own.
    """
    others = tuple(k for k in range(weight.ndim) if k != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale).clip(-127, 127).astype(np.int8), scale


def _axes(model: Any) -> Iterator[tuple[str, int]]:
    """Give each weight that is stored in int8, with the axis of its output channels."""
    stored = {i.name: i for i in model.graph.initializer}
    readers: dict[str, set[int]] = {}
    for node in model.graph.node:
        place = _WEIGHTS.get(node.op_type)
        for k, name in enumerate(node.input):
            if name in stored:
                readers.setdefault(name, set()).add(_axis(node, stored[name]) if k == place else -1)
    for name, axes in readers.items():
        one = stored[name]
        large = one.data_type == _ONNX_FLOAT and len(one.dims) > 1 and int(np.prod(one.dims)) >= _LEAST
        if large and len(axes) == 1 and -1 not in axes:
            yield name, axes.pop()


def _axis(node: Any, weight: Any) -> int:
    """Return the axis of output channels; -1 where a node reads its weight some other way."""
    said = {a.name: a.i for a in node.attribute}
    if node.op_type == "Gather":
        return 0 if said.get("axis", 0) == 0 else -1
    if node.op_type == "Gemm":
        return 0 if said.get("transB") else 1
    if node.op_type == "MatMul":
        return len(weight.dims) - 1
    # (in, out / groups, …) of a ConvTranspose; of several groups an index means several channels, and one scale serves all.
    return 1 if node.op_type == "ConvTranspose" else 0


def restore_int8(model: Any) -> Any:
    """Return `model`, changed in place, with the weights that `store_int8` stored in float32 again, rounded as they are."""
    numpy_helper = need("onnx.numpy_helper", extra="host")
    stored = {i.name: i for i in model.graph.initializer}
    floats: dict[str, Any] = {}
    kept = []
    for node in model.graph.node:
        first = stored.get(node.input[0]) if node.input else None
        # By its own names alone: a graph may hold int8 constants of another kind.
        if (
            node.op_type == "Cast"
            and first is not None
            and first.name.endswith(_INT8)
            and node.name.endswith(_FLOAT)
        ):
            floats[node.output[0]] = first
        elif node.op_type == "Mul" and node.input[0] in floats and node.name.endswith(_SCALE):
            held, scale = floats[node.input[0]], stored[node.input[1]]
            values = numpy_helper.to_array(held).astype(np.float32) * numpy_helper.to_array(scale)
            held.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    left = {name for node in kept for name in node.input}
    kept_arrays = [i for i in model.graph.initializer if i.name in left or not i.name.endswith(_SCALE)]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept_arrays)
    return model
