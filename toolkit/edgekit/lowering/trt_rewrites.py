"""Say in older operators what an older TensorRT does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.core.lazy import need
from edgekit.core.records import TensorSpec
from edgekit.graph.walk import in_order

_UINT8, _INT32, _INT64 = 2, 6, 7


def without_layer_norm(model: Any) -> Any:
    """Return a copy whose LayerNormalization nodes are means, differences and a square root (TensorRT 8.5)."""
    if not any(n.op_type == "LayerNormalization" for n in model.graph.node):
        return model
    onnx, numpy_helper = need("onnx", extra="host"), need("onnx.numpy_helper", extra="host")
    done = onnx.ModelProto()
    done.CopyFrom(model)
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*model.graph.value_info, *model.graph.input)}
    nodes: list[Any] = []
    for node in done.graph.node:
        if node.op_type != "LayerNormalization":
            nodes.append(node)
            continue
        words = {a.name: a.i if a.type == onnx.AttributeProto.INT else a.f for a in node.attribute}
        axis = int(words.get("axis", -1))
        if axis >= 0:
            axis -= ranks[node.input[0]]
        epsilon = np.array(words.get("epsilon", 1e-5), np.float32)
        done.graph.initializer.append(numpy_helper.from_array(epsilon, f"{node.name}::epsilon"))
        nodes += _mean_and_root(node, list(range(axis, 0)), onnx.helper)
    ordered = in_order(nodes)
    del done.graph.node[:]
    done.graph.node.extend(ordered)
    return onnx.shape_inference.infer_shapes(done)


def _mean_and_root(node: Any, axes: list[int], helper: Any) -> list[Any]:
    """Return y = (x - mean) / sqrt(variance + epsilon) * scale + bias as nodes."""
    base, given = node.name, node.input

    def make(op: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return helper.make_node(op, inputs, [output], name=f"{base}::{op}::{output}", **attributes)

    names = [f"{base}::{part}" for part in ("mean", "apart", "square", "variance", "safe", "root", "normal")]
    mean, apart, square, variance, safe, root, normal = names
    biased = len(given) > 2 and bool(given[2])
    scaled = f"{base}::scaled" if biased else node.output[0]
    nodes = [
        make("ReduceMean", [given[0]], mean, axes=axes, keepdims=1), make("Sub", [given[0], mean], apart),
        make("Mul", [apart, apart], square), make("ReduceMean", [square], variance, axes=axes, keepdims=1),
        make("Add", [variance, f"{base}::epsilon"], safe), make("Sqrt", [safe], root),
        make("Div", [apart, root], normal), make("Mul", [normal, given[1]], scaled),
    ]  # fmt: skip
    return [*nodes, make("Add", [scaled, given[2]], node.output[0])] if biased else nodes


def int32_inputs(model: Any) -> Any:
    """Return a copy whose UINT8 inputs are INT32: TensorRT 8.5 takes no other integers (the runtime widens bytes)."""
    onnx = need("onnx", extra="host")
    if not any(v.type.tensor_type.elem_type == _UINT8 for v in model.graph.input):
        return model
    done = onnx.ModelProto()
    done.CopyFrom(model)
    for value in done.graph.input:
        if value.type.tensor_type.elem_type == _UINT8:
            value.type.tensor_type.elem_type = _INT32
    return done


def own_inputs(model: Any, specs: Sequence[TensorSpec]) -> Any:
    """Return a copy that takes its inputs in a network's own types again, which `int32_inputs` had widened."""
    onnx = need("onnx", extra="host")
    kinds = {s.name: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(s.dtype)) for s in specs}
    if all(v.type.tensor_type.elem_type == kinds[v.name] for v in model.graph.input if v.name in kinds):
        return model
    done = onnx.ModelProto()
    done.CopyFrom(model)
    for value in done.graph.input:
        if value.name in kinds:
            value.type.tensor_type.elem_type = kinds[value.name]
    return done


def int32_outputs(model: Any) -> Any:
    """Return a copy whose INT64 outputs are INT32: TensorRT 8 has no other (the runtime widens them again)."""
    wide = [v.name for v in model.graph.output if v.type.tensor_type.elem_type == _INT64]
    if not wide:
        return model
    onnx = need("onnx", extra="host")
    done = onnx.ModelProto()
    done.CopyFrom(model)
    for value in done.graph.output:
        if value.name in wide:
            inner = f"{value.name}::int64"
            for node in done.graph.node:
                node.output[:] = [inner if o == value.name else o for o in node.output]
                node.input[:] = [inner if i == value.name else i for i in node.input]
            cast = onnx.helper.make_node(
                "Cast", [inner], [value.name], name=f"{value.name}::int32", to=_INT32
            )
            done.graph.node.append(cast)
            value.type.tensor_type.elem_type = _INT32
    return done
