"""Say which layers of a network can run in int8, and which tensors a plan needs ranges for."""

from __future__ import annotations

from typing import Any

from edgekit.core.records import LayerChoice
from edgekit.graph.onnx_file import arrays_of
from edgekit.graph.walk import before, makers

WEIGHTED = ("Conv", "Gemm", "MatMul")


def choices(model: Any) -> tuple[LayerChoice, ...]:
    """Return every layer with constant weights, int8 where that is sound, else float with the reason."""
    constants = arrays_of(model)
    made = makers(model.graph)
    found = []
    for node in model.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        reason = _why_float(node, constants, made)
        precision = "float" if reason else "int8"
        found.append(
            LayerChoice(
                name=node.name, op=node.op_type, precision=precision, reason=reason or "weighted layer"
            )
        )
    return tuple(found)


def _why_float(node: Any, constants: dict[str, Any], made: dict[str, Any]) -> str:
    """Return why a layer must stay in float, empty where int8 is sound."""
    if len(node.input) < 2 or node.input[1] not in constants:
        return "its weights are computed"
    weight = constants[node.input[1]]
    source = made.get(node.input[0])
    # The projection of a box distribution: sixteen fixed weights after a Softmax. In int8 it would
    # cost accuracy and save nothing.
    if (
        node.op_type == "Conv"
        and weight.shape[0] == 1
        and source is not None
        and _after_softmax(source, made)
    ):
        return "decode tail"
    if node.op_type == "Gemm" and not _plain_gemm(node):
        return "scaled or transposed product"
    return ""


def _after_softmax(node: Any, made: dict[str, Any]) -> bool:
    while node is not None and node.op_type in {"Transpose", "Reshape", "Identity"}:
        node = made.get(node.input[0])
    return node is not None and node.op_type == "Softmax"


def _plain_gemm(node: Any) -> bool:
    values = {a.name: a.f if a.type == 1 else a.i for a in node.attribute}
    plain = values.get("alpha", 1.0) == 1.0 and values.get("beta", 1.0) == 1.0
    return bool(plain) and not values.get("transA", 0)


def body(model: Any, int8: frozenset[str]) -> set[str]:
    """Return the nodes at or before any int8 layer; all that follows the last ones is the float tail."""
    return before(model.graph, set(int8)) if int8 else set()


def float_tensors(model: Any) -> list[str]:
    """Return the float32 activations of a graph, inputs included, in graph order."""
    onnx_float = 1
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.input)}
    kinds |= {v.name: v.type.tensor_type.elem_type for v in model.graph.output}
    stored = set(arrays_of(model))
    names = [v.name for v in model.graph.input]
    names += [o for node in model.graph.node for o in node.output if node.op_type != "Constant"]
    return [n for n in names if kinds.get(n) == onnx_float and n not in stored]
