"""Find in an ONNX file what TensorRT refuses, or builds slower or otherwise than was meant, before any build.

Rules come from onnx-tensorrt's operator tables, NVIDIA's seven rules for placing Q/DQ, rejections seen from
TensorRT for RTX 1.7.1, and reports in TensorRT's issues; docs/jetson.md has one line a rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.core.lazy import need
from edgekit.devices.jetpacks import Target
from edgekit.graph.onnx_file import arrays_of
from edgekit.graph.strong import SCALE_FLOOR
from edgekit.graph.walk import makers, readers
from edgekit.lowering import trt_ops

ERROR, WARNING, NOTE = "error", "warning", "note"
_ACTIVATIONS = frozenset(
    {"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid", "HardSwish", "Mish", "Elu", "PRelu"}
)
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SAME_TYPE = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Min",
        "Max",
        "Pow",
        "Concat",
        "Conv",
        "ConvTranspose",
        "MatMul",
        "Gemm",
        "Where",
        "PRelu",
    }
)
_PLUGINS = frozenset({"EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT"})
_FLOATS = frozenset({1, 10, 16, 11})
# TensorProto's types that Q gives and DQ takes.
_INTEGERS = {2: "uint8", 3: "int8", 17: "float8", 21: "uint4", 22: "int4", 23: "float4"}
_DOUBLE, _INT64, _UINT8 = 11, 7, 2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found.

    Attributes:
        rule: Its name.
        severity: "error" (the build fails or the result is wrong), "warning" (slower or at risk), "note".
        node: Name of the node, or of the input or output.
        what: What is wrong.
        todo: What to do.
    """

    rule: str
    severity: str
    node: str
    what: str
    todo: str


class Facts:
    """A model as rules look at it."""

    def __init__(self, model: Any, target: Target) -> None:
        onnx = need("onnx", extra="host")
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except onnx.shape_inference.InferenceError:
            # Mixed types stop inference; the rules that need shapes then see those of the file.
            inferred = model
        self.model, self.graph, self.target = inferred, inferred.graph, target
        self.helper = onnx.helper
        self.arrays = arrays_of(inferred)
        self.made, self.read = makers(self.graph), readers(self.graph)
        known = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        self.types = {v.name: v.type.tensor_type.elem_type for v in known}
        self.types |= {i.name: i.data_type for i in self.graph.initializer}
        self.shapes = {v.name: tuple(_sizes(v)) for v in known if v.type.tensor_type.HasField("shape")}
        self.shapes |= {i.name: tuple(i.dims) for i in self.graph.initializer}

    def words(self, node: Any) -> dict[str, Any]:
        """Return a node's attributes by name."""
        return {a.name: self.helper.get_attribute_value(a) for a in node.attribute}

    def source(self, name: str) -> Any:
        """Return the node that makes a tensor, None for inputs and constants."""
        return self.made.get(name)

    def is_dq(self, name: str) -> bool:
        """Return whether a tensor comes from a DequantizeLinear."""
        node = self.made.get(name)
        return node is not None and node.op_type == "DequantizeLinear"

    def constant(self, name: str) -> bool:
        """Return whether a tensor is stored, or quantized and dequantized from something stored."""
        node = self.made.get(name)
        while node is not None and node.op_type in {"QuantizeLinear", "DequantizeLinear", "Cast"}:
            name = node.input[0]
            node = self.made.get(name)
        return name in self.arrays


def _sizes(value: Any) -> Iterator[int]:
    for size in value.type.tensor_type.shape.dim:
        yield size.dim_value if size.HasField("dim_value") else -1


def lint(model: Any, target: Target) -> list[Finding]:
    """Return what is found in a ModelProto for one target, errors first, each node once a rule."""
    from edgekit.lowering.trt_dla import dla_rules

    facts = Facts(model, target)
    rules = (*_RULES, *(dla_rules if target.dla is not None else ()))
    found = {(f.rule, f.node): f for rule in rules for f in rule(facts)}
    order = (ERROR, WARNING, NOTE)
    return sorted(found.values(), key=lambda f: order.index(f.severity))


def _operators(facts: Facts) -> Iterator[Finding]:
    """Operators, opset and types that the version's table does not list."""
    version = facts.target.version
    table, listed = trt_ops.table(trt_ops.column(version)), trt_ops.column(version)
    opset = next((o.version for o in facts.model.opset_import if o.domain in {"", "ai.onnx"}), 0)
    if opset > trt_ops.largest_opset(version):
        yield Finding(
            rule="opset", severity=ERROR, node="model", what=f"opset {opset}; TensorRT {facts.target.tensorrt} reads up to {trt_ops.largest_opset(version)}",
            todo=f"Export at opset {trt_ops.largest_opset(version)}.",
        )  # fmt: skip
    for node in facts.graph.node:
        support = table.get(node.op_type)
        if node.op_type in _PLUGINS:
            yield _finding(
                "plugin",
                WARNING,
                node,
                "is a plug-in of TensorRT: no host can check it",
                "Keep NMS out of the graph.",
            )
        elif node.domain not in {"", "ai.onnx"} or support is None or not support.supported:
            yield _finding(
                "operator", ERROR, node, f"{node.op_type} is not read by TensorRT {listed}'s ONNX parser",
                "Export without it, or cut the graph before it and do the rest on the host.",
            )  # fmt: skip
        else:
            yield from _support(facts, node, support)


def _support(facts: Facts, node: Any, support: trt_ops.Support) -> Iterator[Finding]:
    kind = trt_ops.type_word(facts.types.get(node.input[0] if node.input else "", 0))
    quantizes = node.op_type in {"QuantizeLinear", "DequantizeLinear", "Cast"}
    # INT64 and DOUBLE have rules of their own; a shape computation in INT64 is no fault.
    if (
        kind in {"FP16", "BF16", "INT8", "UINT8", "BOOL"}
        and support.types
        and kind not in support.types
        and not quantizes
    ):
        yield _finding(
            "operator-type", ERROR, node, f"{node.op_type} of {kind} is not listed for TensorRT {support.listed}",
            f"Listed are {', '.join(sorted(support.types))}: cast before it.",
        )  # fmt: skip
    broken = _BROKEN.get(node.op_type)
    if broken and support.restrictions and (what := broken(facts, node)):
        yield _finding("restriction", ERROR, node, what, f"TensorRT {support.listed}: {support.restrictions}")


def _resize(facts: Facts, node: Any) -> str:
    words = {k: v.decode() if isinstance(v, bytes) else v for k, v in facts.words(node).items()}
    if words.get("mode", "nearest") not in {"nearest", "linear"}:
        return f"mode {words['mode']!r}"
    if words.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return "coordinates tf_crop_and_resize"
    return "antialiasing" if words.get("antialias") else ""


def _top_k(facts: Facts, node: Any) -> str:
    k = facts.arrays.get(node.input[1])
    if facts.target.version < (8, 6) and k is None:
        return "K is computed"
    return (
        f"K is {int(k.flat[0])}"
        if k is not None and facts.target.version >= (10, 0) and k.size and k.flat[0] >= 3840
        else ""
    )


def _stored(position: int, word: str) -> Callable[[Facts, Any], str]:
    def rule(facts: Facts, node: Any) -> str:
        given = node.input[position] if len(node.input) > position else ""
        return f"`{word}` is computed" if given and given not in facts.arrays else ""

    return rule


def _pooling(facts: Facts, node: Any) -> str:
    words = facts.words(node)
    if len(node.output) > 1 and node.output[1]:
        return "gives indices"
    dilated = any(d != 1 for d in words.get("dilations", [])) and facts.target.version >= (10, 0)
    return (
        "dilations other than 1"
        if dilated
        else ""
        if len(words.get("kernel_shape", [0, 0])) in {2, 3}
        else "is neither 2D nor 3D"
    )


def _scatter(facts: Facts, node: Any) -> str:
    word = facts.words(node).get("reduction", b"none")
    return "" if word in {b"none", "none"} or facts.target.version < (10, 0) else "uses a reduction"


_BROKEN: dict[str, Callable[[Facts, Any], str]] = {
    "Resize": _resize, "TopK": _top_k, "MaxPool": _pooling, "AveragePool": _pooling, "ScatterND": _scatter,
    "CumSum": _stored(1, "axis"), "Slice": _stored(3, "axes"), "Squeeze": _stored(1, "axes"),
    "Unsqueeze": _stored(1, "axes"), "Pad": _stored(3, "axes"),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"), _stored(1, "axes")),
}  # fmt: skip


def _end_types(word: str, version: tuple[int, ...]) -> dict[int, tuple[str, str, str, str]]:
    """Return rule, severity, fault and way out of each type that an input or output should not have."""
    found = {}
    if word == "input" and version < (8, 6):
        found[_UINT8] = (
            "uint8-input", ERROR, "UINT8, which TensorRT takes from 8.6 on", "Declare it INT32; the values stay.",
        )  # fmt: skip
    if version < (10, 0):
        found[_INT64] = (
            "int64",
            ERROR,
            "INT64, TensorRT 8 binds it as INT32",
            "Cast it to INT32 in the graph.",
        )
    else:
        found[_INT64] = (
            "int64", NOTE, "INT64: bound as such from TensorRT 10 on, as INT32 by 8",
            "Cast it to INT32 where one file serves both.",
        )  # fmt: skip
    return found


def _shapes(facts: Facts) -> Iterator[Finding]:
    """Free dimensions and types of inputs and outputs."""
    ends = [*((v, "input") for v in facts.graph.input), *((v, "output") for v in facts.graph.output)]
    for value, word in ends:
        kind = value.type.tensor_type.elem_type
        said = _end_types(word, facts.target.version).get(kind)
        if said:
            rule, severity, what, todo = said
            yield Finding(rule=rule, severity=severity, node=value.name, what=f"{word} is {what}", todo=todo)
        if word == "input" and -1 in facts.shapes.get(value.name, ()):
            yield Finding(
                rule="dynamic", severity=ERROR, node=value.name, what=f"shape {facts.shapes[value.name]} needs an optimization profile",
                todo="Fix the shape: edgekit compiles static ones.",
            )  # fmt: skip
    for node in facts.graph.node:
        if any(facts.types.get(o) == _DOUBLE for o in (*node.input, *node.output)):
            yield _finding(
                "double",
                WARNING,
                node,
                "computes in DOUBLE, which TensorRT casts down to float32",
                "Export in float32.",
            )


def _scales(facts: Facts) -> Iterator[Finding]:
    """Scales and zero points of Q/DQ."""
    for node in facts.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        scale = facts.arrays.get(node.input[1])
        if scale is None:
            yield _finding(
                "dynamic-scale",
                ERROR,
                node,
                "its scale is computed",
                "Store scales in the file: calibrate before export.",
            )
            continue
        zero = facts.arrays.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is not None and np.any(zero != 0):
            yield _finding("zero-point", ERROR, node, "zero point is not 0", "Quantize symmetrically.")
        if not np.all(scale > 0):
            yield _finding(
                "scale",
                ERROR,
                node,
                "a scale is not positive",
                f"Floor scales at {SCALE_FLOOR:g}: fp16 turns smaller ones into 0.",
            )
        elif scale.dtype == np.float16 and np.any(scale.astype(np.float32) < SCALE_FLOOR * 0.99):
            yield _finding(
                "scale",
                WARNING,
                node,
                "an fp16 scale below the smallest normal number",
                f"Floor scales at {SCALE_FLOOR:g}.",
            )
        yield from _kinds(facts, node, zero, scale)


def _stated(facts: Facts, node: Any) -> str:
    """Return the integer type of a Q or DQ without a zero point: its input's, its output_dtype, else UINT8."""
    if node.op_type == "DequantizeLinear":
        return _INTEGERS.get(facts.types.get(node.input[0], 0), "uint8")
    told = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
    return _INTEGERS.get(told, "uint8")


def _kinds(facts: Facts, node: Any, zero: Any, scale: Any) -> Iterator[Finding]:
    kind = zero.dtype.name if zero is not None else _stated(facts, node)
    if node.op_type == "DequantizeLinear" and facts.types.get(node.input[0]) == 6:
        yield _finding(
            "int32-bias", ERROR, node, "dequantizes INT32 (a quantized bias)", "Leave biases in float."
        )
    elif kind == "uint8":
        severity = WARNING if facts.target.version >= (11, 0) else ERROR
        yield _finding("uint8", severity, node, "quantizes to UINT8", "Quantize to INT8.")
    if scale.size > 1 and not facts.constant(node.input[0]):
        yield _finding(
            "per-channel-activation",
            ERROR,
            node,
            "one scale a channel on an activation",
            "Take one scale a tensor; only weights have one a channel.",
        )
    if scale.dtype == np.float16 and facts.target.version < (10, 0):
        yield _finding(
            "half-scale",
            ERROR,
            node,
            "scale in fp16, which needs opset 19",
            "Keep scales in float32 for TensorRT 8.",
        )


def _placement(facts: Facts) -> Iterator[Finding]:
    """Q/DQ where TensorRT does not expect it, so that a layer stays in float or a fusion breaks."""
    for node in facts.graph.node:
        if node.op_type == "QuantizeLinear":
            yield from _between(facts, node)
        elif node.op_type in _WEIGHTED:
            yield from _weighted(facts, node)
        elif node.op_type == "Concat":
            yield from _concat(facts, node)


def _between(facts: Facts, node: Any) -> Iterator[Finding]:
    """A Q behind a weighted layer whose DQ feeds an activation, or inside x * sigmoid(x)."""
    maker = facts.source(node.input[0])
    after = [r for q in facts.read[node.output[0]] for r in facts.read[q.output[0]]]
    if maker is not None and maker.op_type in _WEIGHTED and any(r.op_type in _ACTIVATIONS for r in after):
        yield _finding(
            "before-activation", WARNING, node, f"Q/DQ between {maker.name} and its activation: the two do not fuse",
            "Quantize behind the activation.",
        )  # fmt: skip
    if (
        maker is not None
        and maker.op_type in {"Sigmoid", "HardSigmoid"}
        and any(r.op_type == "Mul" for r in after)
    ):
        yield _finding(
            "inside-activation", WARNING, node, "Q/DQ inside x * sigmoid(x)", "Quantize its product alone."
        )


def _weighted(facts: Facts, node: Any) -> Iterator[Finding]:
    given, weight = (facts.is_dq(i) for i in node.input[:2])
    constant = facts.constant(node.input[1])
    if given != weight and (constant or node.op_type == "MatMul"):
        missing = "weight" if given else "input"
        yield _finding(
            "half-quantized",
            ERROR,
            node,
            f"its {missing} is not quantized, the other one is: it runs in float",
            "Quantize both, or neither.",
        )
    if not (given and weight):
        for k, name in enumerate(node.input[:2]):
            cast = facts.source(name)
            if cast is not None and cast.op_type == "Cast" and facts.is_dq(cast.input[0]):
                yield _finding(
                    "cast-behind-dq",
                    WARNING,
                    node,
                    f"a Cast between DequantizeLinear and input {k}: they do not fuse",
                    "Give the scale the type of the layer.",
                )
        return
    if node.op_type == "ConvTranspose":
        yield _finding(
            "deconvolution",
            WARNING,
            node,
            "a quantized ConvTranspose: wrong fusion was reported (TensorRT issue 4366)",
            "Keep it in float until checked on the device.",
        )
    scale = facts.arrays.get(facts.source(node.input[1]).input[1])
    if node.op_type in {"Conv", "ConvTranspose"} and scale is not None and scale.size == 1:
        yield _finding(
            "per-tensor-weight",
            WARNING,
            node,
            "one scale for all of its weights",
            "Take one scale an output channel.",
        )


def _concat(facts: Facts, node: Any) -> Iterator[Finding]:
    sources = [facts.source(i) for i in node.input if facts.is_dq(i)]
    if sources and len(sources) < len(node.input):
        yield _finding(
            "concat-part",
            WARNING,
            node,
            f"{len(sources)} of its {len(node.input)} inputs are quantized",
            "Quantize all of them with one scale, or only its output.",
        )
        return
    scales = {float(s.flat[0]) for n in sources if (s := facts.arrays.get(n.input[1])) is not None}
    if len(scales) > 1:
        yield _finding(
            "concat-scales",
            WARNING,
            node,
            f"its inputs have {len(scales)} different scales: each is requantized",
            "Give all of them one scale.",
        )


def _types(facts: Facts) -> Iterator[Finding]:
    """Operands of different float types; a scale of another type than what it scales."""
    for node in facts.graph.node:
        if node.op_type not in _SAME_TYPE:
            continue
        start = 1 if node.op_type == "Where" else 0
        kinds = {facts.types.get(i) for i in node.input[start:] if i} & _FLOATS
        if len(kinds) > 1:
            words = " and ".join(sorted(trt_ops.type_word(k or 0) or "DOUBLE" for k in kinds))
            yield _finding("mixed-types", ERROR, node, f"operands are {words}", "Cast one of them.")


def _shared(facts: Facts) -> Iterator[Finding]:
    """One stored weight with two scales."""
    scales: dict[str, set[bytes]] = defaultdict(set)
    for node in facts.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and node.input[0] in facts.arrays:
            scale = facts.arrays.get(node.input[1])
            scales[node.input[0]].add(b"" if scale is None else scale.astype(np.float32).tobytes())
            if len(scales[node.input[0]]) == 2:
                yield _finding(
                    "shared-weight",
                    WARNING,
                    node,
                    f"weight {node.input[0]!r} is used with two scales",
                    "Store it twice, or share the scale.",
                )


def _finding(rule: str, severity: str, node: Any, what: str, todo: str) -> Finding:
    return Finding(rule=rule, severity=severity, node=node.name or node.output[0], what=what, todo=todo)


_RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _operators,
    _shapes,
    _scales,
    _placement,
    _types,
    _shared,
)
