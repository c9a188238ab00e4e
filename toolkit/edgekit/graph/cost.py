"""Count a network's parameters and multiply-adds, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from edgekit.core.lazy import need

_WEIGHTED = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "BatchNormalization",
        "LayerNormalization",
        "PRelu",
        "LSTM",
        "GRU",
    }
)
_COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU"})


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one inference of a static graph takes.

    Attributes:
        params: Elements of float weights and biases; constants of decoding are none.
        gflops: 2 x multiply-adds of convolutions, recurrent layers and matrix products, in 1e9, as ultralytics counts.
        activations: Elements that convolutions and matrix products write.
    """

    params: int
    gflops: float
    activations: int


def cost_of(model: Any) -> Cost:
    """Return the cost of a ModelProto with static shapes."""
    onnx = need("onnx", extra="host", why="count")
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = _shapes(inferred)
    weights = {i for n in model.graph.node if n.op_type in _WEIGHTED for i in n.input[1:]}
    weights |= {n.input[0] for n in model.graph.node if n.op_type == "Gather"}
    # Weights that are stored in fp16 stand behind a Cast.
    weights |= {n.input[0] for n in model.graph.node if n.op_type == "Cast" and n.output[0] in weights}
    stored = (i for i in model.graph.initializer if i.name in weights and i.data_type in {1, 10, 16})
    params = sum(math.prod(i.dims) for i in stored)
    macs, written = 0, 0
    for node in model.graph.node:
        if node.op_type not in _COUNTED:
            continue
        out = shapes.get(node.output[0], ())
        weight = shapes.get(node.input[1], ())
        written += math.prod(out)
        if node.op_type in {"LSTM", "GRU"}:
            steps, batch = shapes.get(node.input[0], (0, 0))[:2]
            macs += steps * batch * sum(math.prod(shapes.get(i, (0,))) for i in node.input[1:3])
            continue
        macs += _macs(node.op_type, out, weight, shapes.get(node.input[0], ()))
    return Cost(params=params, gflops=2 * macs / 1e9, activations=written)


def _macs(op: str, out: tuple[int, ...], weight: tuple[int, ...], given: tuple[int, ...]) -> int:
    if op == "Conv":
        return math.prod(out) * math.prod(weight[1:])
    if op == "ConvTranspose":
        return math.prod(given) * math.prod(weight[1:])
    return math.prod(out) * (given[-1] if given else 0)


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    found = {i.name: tuple(i.dims) for i in model.graph.initializer}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        found[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return found
