"""ONNX files with one planted fault each, that onnx.checker lets pass and TensorRT refuses or builds badly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F, H, D = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(8, 3, 3, 3)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One planted fault.

    Attributes:
        rule: That must find it.
        severity: With which.
        make: Returns the ModelProto.
        device: Profile and options of the target.
        rtx: What TensorRT for RTX says: "rejected", "accepted" (it cannot see it), "not checked".
    """

    rule: str
    severity: str
    make: Callable[[], Any]
    device: tuple[str, dict[str, Any]] = ("jetson-agx-orin", {"jetpack": "6.2"})
    rtx: str = "accepted"


def model(
    nodes: list[Any],
    stored: dict[str, np.ndarray],
    *,
    opset: int = 17,
    shape: Any = (1, 3, 16, 16),
    kind: int = F,
    out: int = F,
    outputs: tuple[str, ...] = ("y",),
) -> Any:
    """Return a model with one input `x`."""
    for k, node in enumerate(nodes):
        node.name = node.name or f"{node.op_type}_{k}"
    graph = helper.make_graph(
        nodes, "fault", [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info(o, out, None) for o in outputs],
        [numpy_helper.from_array(v, n) for n, v in stored.items()],
    )  # fmt: skip
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    found = onnx.shape_inference.infer_shapes(found)
    onnx.checker.check_model(found)
    return found


def pair(
    name: str, given: str, *, scale: Any = 0.02, zero: Any = None, half: bool = False, **attributes: Any
) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Return a QuantizeLinear and a DequantizeLinear behind a tensor; the latter gives `name`."""
    s = np.array(scale, np.float16 if half else np.float32)
    stored = {f"{name}.s": s, f"{name}.z": np.zeros(s.shape, np.int8) if zero is None else zero}
    nodes = [
        helper.make_node(
            "QuantizeLinear", [given, f"{name}.s", f"{name}.z"], [f"{name}.q"], name=f"{name}.q", **attributes
        ),
        helper.make_node(
            "DequantizeLinear", [f"{name}.q", f"{name}.s", f"{name}.z"], [name], name=name, **attributes
        ),
    ]
    return nodes, stored


def conv(given: str = "x.dq", *, weight: str = "w.dq", bias: str = "", out: str = "y") -> Any:
    """Return a convolution of 3 to 8 channels."""
    return helper.make_node(
        "Conv", [given, weight, *([bias] if bias else [])], [out], name="conv", pads=[1, 1, 1, 1]
    )


def weights(*, scale: Any = None, half: bool = False) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Return the convolution's weights as int8 behind a DequantizeLinear, one scale a channel."""
    s = np.full(8, 0.02) if scale is None else np.asarray(scale)
    s = s.astype(np.float16 if half else np.float32)
    whole = np.clip(np.rint(WEIGHT / 0.02), -127, 127).astype(np.int8)
    stored = {"w.i": whole, "w.s": s, "w.z": np.zeros(s.shape, np.int8)}
    return [
        helper.make_node("DequantizeLinear", ["w.i", "w.s", "w.z"], ["w.dq"], name="w.dq", axis=0)
    ], stored


def quantized(
    tail: list[Any] | None = None,
    stored: dict[str, np.ndarray] | None = None,
    *,
    gives: str = "y",
    bias: str = "",
    opset: int = 17,
    given: Any = None,
    weight: Any = None,
    **words: Any,
) -> Any:
    """Return a quantized convolution with something behind it."""
    q, s = given or pair("x.dq", "x")
    w, ws = weight or weights()
    return model(
        [*q, *w, conv(out=gives, bias=bias), *(tail or [])],
        {**s, **ws, **(stored or {})},
        opset=opset,
        **words,
    )


def _int32_bias() -> Any:
    tail = {"b.i": np.arange(8, dtype=np.int32), "b.s": np.full(8, 4e-4, np.float32)}
    node = helper.make_node("DequantizeLinear", ["b.i", "b.s"], ["b"], name="b", axis=0)
    q, s = pair("x.dq", "x")
    w, ws = weights()
    return model([*q, *w, node, conv(bias="b")], {**s, **ws, **tail})


def _uint8() -> Any:
    return quantized(given=pair("x.dq", "x", zero=np.array(0, np.uint8)))


def _per_channel() -> Any:
    return quantized(given=pair("x.dq", "x", scale=[0.01, 0.02, 0.03], axis=1))


def _computed_scale() -> Any:
    node = helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0)
    q = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x.q"], name="x.q")
    dq = helper.make_node("DequantizeLinear", ["x.q", "s", "z"], ["x.dq"], name="x.dq")
    return quantized(given=([node, q, dq], {"z": np.array(0, np.int8)}))


def _before_activation() -> Any:
    q, s = pair("c.dq", "c")
    return quantized([*q, helper.make_node("Relu", ["c.dq"], ["y"])], s, gives="c")


def _inside_silu() -> Any:
    q, s = pair("g.dq", "g", scale=0.008)
    tail = [helper.make_node("Sigmoid", ["c"], ["g"]), *q, helper.make_node("Mul", ["c", "g.dq"], ["y"])]
    return quantized(tail, s, gives="c")


def _half_quantized() -> Any:
    w, ws = weights()
    return model([*w, conv("x")], ws)


def _concat(*scales: float) -> Any:
    nodes, stored, names = [], {}, []
    for k, scale in enumerate(scales):
        if scale:
            q, s = pair(f"x{k}", "x", scale=scale)
            nodes += q
            stored |= s
        names.append(f"x{k}" if scale else "x")
    return model([*nodes, helper.make_node("Concat", names, ["y"], axis=1)], stored)


def _shared() -> Any:
    _, stored = weights()
    other, again = weights(scale=np.full(8, 0.03))
    other[0].input[:] = ["w.i", "v.s", "v.z"]
    other[0].output[0] = other[0].name = "v.dq"
    stored |= {"v.s": again["w.s"], "v.z": again["w.z"]}
    second = helper.make_node("Conv", ["x.dq", "v.dq"], ["d"], pads=[1, 1, 1, 1], name="second")
    return quantized(
        [*other, second, helper.make_node("Add", ["c", "d"], ["y"])],
        {k: v for k, v in stored.items() if k[0] == "v"},
        gives="c",
    )


def _cast_behind() -> Any:
    q, s = pair("x.dq", "x")
    w, ws = weights()
    casts = [helper.make_node("Cast", [n], [f"{n}.h"], to=H, name=f"{n}.h") for n in ("x.dq", "w.dq")]
    return model([*q, *w, *casts, conv("x.dq.h", weight="w.dq.h")], {**s, **ws}, out=H)


def _mixed() -> Any:
    cast = helper.make_node("Cast", ["x"], ["h"], to=H)
    found = helper.make_model(
        helper.make_graph(
            [cast, helper.make_node("Add", ["x", "h"], ["y"], name="add")], "mixed",
            [helper.make_tensor_value_info("x", F, [1, 3, 16, 16])], [helper.make_tensor_value_info("y", F, [1, 3, 16, 16])],
        ), opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    onnx.checker.check_model(found)
    return found


def _q_linear() -> Any:
    stored = {"s": np.array(0.02, np.float32), "z": np.array(0, np.int8), "w": np.ones((8, 3, 3, 3), np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node(
            "QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], ["c"], pads=[1, 1, 1, 1], name="conv"
        ),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    return model(nodes, stored)


def _unique() -> Any:
    return model([helper.make_node("Unique", ["x"], ["y"], name="unique")], {})


def _layer_norm() -> Any:
    stored = {"g": np.ones(16, np.float32), "b": np.zeros(16, np.float32)}
    return model([helper.make_node("LayerNormalization", ["x", "g", "b"], ["y"], name="norm")], stored)


def _nms() -> Any:
    node = helper.make_node("EfficientNMS_TRT", ["x", "x"], ["y"], domain="trt", name="nms")
    return helper.make_model(
        helper.make_graph(
            [node], "nms", [helper.make_tensor_value_info("x", F, [1, 100, 4])], [helper.make_tensor_value_info("y", F, [1, 100])]
        ), opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("trt", 1)], ir_version=8,
    )  # fmt: skip


def _top_k() -> Any:
    node = helper.make_node("TopK", ["x", "k"], ["y", "i"], name="top")
    return model([node], {"k": np.array([4000], np.int64)}, shape=(1, 8400))


def _cubic() -> Any:
    node = helper.make_node("Resize", ["x", "", "f"], ["y"], mode="cubic", name="resize")
    return model([node], {"f": np.array([1, 1, 2, 2], np.float32)})


def _int64() -> Any:
    return model([helper.make_node("ArgMax", ["x"], ["y"], axis=1, name="best")], {}, out=TensorProto.INT64)


def _double() -> Any:
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=D), helper.make_node("Sqrt", ["d"], ["e"], name="root"),
        helper.make_node("Cast", ["e"], ["y"], to=F),
    ]  # fmt: skip
    return model(nodes, {})


def _deconvolution() -> Any:
    q, s = pair("x.dq", "x")
    w, ws = weights()
    w[0].attribute[0].i = 1
    ws = {
        "w.i": np.ones((3, 8, 2, 2), np.int8),
        "w.s": np.full(8, 0.02, np.float32),
        "w.z": np.zeros(8, np.int8),
    }
    node = helper.make_node("ConvTranspose", ["x.dq", "w.dq"], ["y"], strides=[2, 2], name="up")
    return model([*q, *w, node], {**s, **ws})


def _bytes_in() -> Any:
    return model([helper.make_node("Cast", ["x"], ["y"], to=F)], {}, kind=TensorProto.UINT8)


XAVIER = ("jetson-xavier-nx", {"jetpack": "5.1"})
FAULTS = {
    "int32 bias": Fault(rule="int32-bias", severity="error", make=_int32_bias, rtx="rejected"),
    "zero point": Fault(
        rule="zero-point", severity="error", rtx="rejected",
        make=lambda: quantized(given=pair("x.dq", "x", zero=np.array(3, np.int8))),
    ),
    "fp16 scales that are zero": Fault(
        rule="scale", severity="error", rtx="rejected",
        make=lambda: quantized(
            given=pair("x.dq", "x", half=True), weight=weights(scale=np.full(8, 1e-9), half=True), opset=19, kind=H, out=H
        ),
    ),
    "mixed types": Fault(rule="mixed-types", severity="error", make=_mixed, rtx="rejected"),
    "dynamic input": Fault(
        rule="dynamic", severity="error", rtx="rejected",
        make=lambda: model([helper.make_node("Relu", ["x"], ["y"])], {}, shape=("batch", 3, 16, 16)),
    ),
    "QOperator format": Fault(rule="operator", severity="error", make=_q_linear, rtx="rejected"),
    "Unique": Fault(rule="operator", severity="error", make=_unique, rtx="rejected"),
    "plug-in": Fault(rule="plugin", severity="warning", make=_nms, rtx="not checked"),
    "uint8": Fault(rule="uint8", severity="error", make=_uint8),
    "scales a channel on an activation": Fault(rule="per-channel-activation", severity="error", make=_per_channel),
    "computed scale": Fault(rule="dynamic-scale", severity="error", make=_computed_scale, rtx="not checked"),
    "Q/DQ before an activation": Fault(rule="before-activation", severity="warning", make=_before_activation),
    "Q/DQ inside SiLU": Fault(rule="inside-activation", severity="warning", make=_inside_silu),
    "half-quantized": Fault(rule="half-quantized", severity="error", make=_half_quantized),
    "concat of two scales": Fault(rule="concat-scales", severity="warning", make=lambda: _concat(0.02, 0.03)),
    "concat in part": Fault(rule="concat-part", severity="warning", make=lambda: _concat(0.02, 0)),
    "weight with two scales": Fault(rule="shared-weight", severity="warning", make=_shared),
    "cast behind DQ": Fault(rule="cast-behind-dq", severity="warning", make=_cast_behind),
    "one scale for all weights": Fault(
        rule="per-tensor-weight", severity="warning", make=lambda: quantized(weight=weights(scale=np.array(0.02)))
    ),
    "quantized deconvolution": Fault(rule="deconvolution", severity="warning", make=_deconvolution),
    "DOUBLE": Fault(rule="double", severity="warning", make=_double),
    "INT64 output for 8.5": Fault(rule="int64", severity="error", make=_int64, device=XAVIER),
    "UINT8 input for 8.5": Fault(rule="uint8-input", severity="error", make=_bytes_in, device=XAVIER),
    "LayerNormalization for 8.5": Fault(rule="operator", severity="error", make=_layer_norm, device=XAVIER),
    "opset 19 for 8.5": Fault(rule="opset", severity="error", make=lambda: quantized(opset=19), device=XAVIER),
    "fp16 scales for 8.5": Fault(
        rule="half-scale", severity="error", device=XAVIER,
        make=lambda: quantized(given=pair("x.dq", "x", half=True), weight=weights(half=True), opset=19, kind=H, out=H),
    ),
    "TopK of 4000": Fault(rule="restriction", severity="error", make=_top_k, rtx="rejected"),
    "cubic resize": Fault(rule="restriction", severity="error", make=_cubic),
    "Q/DQ for the DLA": Fault(
        rule="dla-qdq", severity="error", make=quantized, device=("jetson-agx-orin", {"jetpack": "6.2", "dla": 0})
    ),
    "LayerNormalization for the DLA": Fault(
        rule="dla-operator", severity="warning", make=_layer_norm, device=("jetson-agx-orin", {"jetpack": "6.2", "dla": 0})
    ),
}  # fmt: skip
