"""Write a plan into a float graph as QuantizeLinear and DequantizeLinear nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.calibration.layers import body
from edgekit.core.lazy import need
from edgekit.core.records import QuantPlan
from edgekit.graph.onnx_file import arrays_of
from edgekit.graph.walk import in_order, makers, readers

# What moves values without changing them: a scale passes through.
MOVES = frozenset({"Slice", "Split", "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, kw_only=True)
class Style:
    """What one engine is fast with.

    Attributes:
        unsigned: uint8 activations with a zero point, else symmetric int8.
        full: Quantize inputs and outputs of every operator in `spread`, not only what layers read.
        spread: Operators that run in int8 themselves when all their tensors are quantized.
        biases: Quantize biases to int32.
        adds: Quantize the operands of residual additions.
        floor: Smallest scale; fp16 scales below 2^-14 become zero or lose digits.
        limit: Largest quantized weight; 64 keeps 16-bit sums of old AVX2 kernels from saturating.
        restate: Quantize again, with the same scale, behind operators that only move values, for engines that
            want a DequantizeLinear right before each layer; it changes no value.
        float_weights: Store weights in float before a Q and a DQ, for engines that read no int8 constants.
    """

    unsigned: bool
    full: bool = False
    spread: frozenset[str] = field(default_factory=frozenset)
    biases: bool = False
    adds: bool = False
    floor: float = 1e-12
    limit: int = 127
    float_weights: bool = False
    restate: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Scale and zero point of one activation."""

    scale: float
    zero: int


def write_qdq(model: Any, plan: QuantPlan, style: Style) -> Any:
    """Return a copy of `model` with the plan's layers between DequantizeLinear and QuantizeLinear.

    Args:
        model: A float ModelProto with named nodes and static shapes, opset 13 or later.
        plan: Ranges and the layers to run in int8.
        style: What the engine is fast with.
    """
    onnx = need("onnx", extra="host")
    done = onnx.ModelProto()
    done.CopyFrom(model)
    own = style if plan.between else replace(style, full=False, spread=frozenset(), biases=False, adds=False)
    writer = _Writer(done, plan, own)
    writer.activations()
    writer.weights()
    writer.finish()
    return done


class _Writer:
    """Holds the graph while Q/DQ nodes are put in; used once."""

    def __init__(self, model: Any, plan: QuantPlan, style: Style) -> None:
        self.helper = need("onnx.helper", extra="host")
        self.numpy_helper = need("onnx.numpy_helper", extra="host")
        self.graph, self.plan, self.style = model.graph, plan, style
        self.constants = arrays_of(model)
        self.int8 = plan.int8_layers()
        self.body = body(model, self.int8)
        self.made, self.read = makers(self.graph), readers(self.graph)
        self.scales: dict[str, Scale] = {}
        self.new_nodes: list[Any] = []
        self.layers = [n for n in self.graph.node if n.name in self.int8]

    def activations(self) -> None:
        """Quantize what the plan's layers read, where it is made, and let them read the result."""
        groups = self._groups()
        for members in groups:
            scale = self._scale([self.plan.ranges[m] for m in members])
            for member in members:
                self.scales[member] = scale
        wanted = self._readers_of_quantized()
        if self.style.restate:
            self._restate(wanted)
        for name in [n for n in self._order() if n in self.scales]:
            new = self._pair(name, self.scales[name])
            for node in self.read.get(name, []):
                if node.name in wanted:
                    for k, given in enumerate(node.input):
                        if given == name:
                            node.input[k] = new

    def _restate(self, wanted: set[str]) -> None:
        """Give tensors that were only moved the scale of where they come from."""
        for node in self.graph.node:
            for name in node.input if node.name in wanted else ():
                roots = self._roots(name)
                if name not in self.scales and roots[0] in self.scales:
                    self.scales[name] = self.scales[roots[0]]

    def _groups(self) -> list[list[str]]:
        """Return the tensors to quantize; those that meet in a Concat or addition share a scale."""
        if self.style.full:
            return self._full_groups()
        parent: dict[str, str] = {}

        def top(name: str) -> str:
            parent.setdefault(name, name)
            while parent[name] != name:
                name = parent[name]
            return name

        def join(roots: list[str]) -> None:
            for other in roots:
                parent[top(other)] = top(roots[0])

        waiting = [layer.input[0] for layer in self.layers]
        if self.style.adds:
            adds = [n for n in self.graph.node if n.op_type == "Add" and n.name in self.body]
            waiting += [i for n in adds if self._feeds_a_layer(n.output[0]) for i in n.input]
        for name in waiting:
            if name in self.plan.ranges:
                join(self._roots(name))
        groups: dict[str, list[str]] = {}
        for name in list(parent):
            groups.setdefault(top(name), []).append(name)
        return list(groups.values())

    def _feeds_a_layer(self, name: str) -> bool:
        return any(n.name in self.body for n in self.read.get(name, []))

    def _roots(self, name: str) -> list[str]:
        """Return where a tensor's values come from, through nodes that only move them."""
        node = self.made.get(name)
        if node is None or name not in self.plan.ranges:
            return [name]
        inner = list(node.input) if node.op_type == "Concat" else [node.input[0]]
        moves = node.op_type in MOVES or node.op_type == "Concat" or _nearest(node)
        if not moves or any(i not in self.plan.ranges for i in inner):
            return [name]
        return [root for i in inner for root in self._roots(i)]

    def _full_groups(self) -> list[list[str]]:
        """Return every tensor that an int8 operator reads or writes; movers keep their input's scale."""
        names: dict[str, list[str]] = {}
        chosen = [n for n in self.graph.node if self._runs_int8(n)]
        for node in chosen:
            for name in (*node.input, *node.output):
                if name in self.plan.ranges and self._quantizable(name):
                    root = self._mover_root(name)
                    members = names.setdefault(root, [root])
                    if name not in members:
                        members.append(name)
        return list(names.values())

    def _quantizable(self, name: str) -> bool:
        return name not in self.constants

    def _mover_root(self, name: str) -> str:
        node = self.made.get(name)
        while node is not None and (node.op_type in MOVES or _nearest(node)) and node.name in self.body:
            name = node.input[0]
            node = self.made.get(name)
        return name

    def _runs_int8(self, node: Any) -> bool:
        if node.name in self.int8:
            return True
        in_body = node.name in self.body and (node.op_type in self.style.spread)
        return in_body and not self._only_reads_float(node)

    def _only_reads_float(self, node: Any) -> bool:
        """Whether a spread operator stands beside an exempted layer: it then stays in float too."""
        givers = [self.made[i] for i in node.input if i in self.made]
        return any(g.op_type in {"Conv", "Gemm", "MatMul"} and g.name not in self.int8 for g in givers)

    def _readers_of_quantized(self) -> set[str]:
        if self.style.full:
            return {n.name for n in self.graph.node if self._runs_int8(n)}
        wanted = set(self.int8)
        for node in self.graph.node:
            moves = node.op_type in MOVES or node.op_type == "Concat" or _nearest(node)
            adds = self.style.adds and node.op_type == "Add"
            if node.name in self.body and (moves or adds):
                wanted.add(node.name)
        return wanted

    def _order(self) -> Iterable[str]:
        yield from (v.name for v in self.graph.input)
        for node in list(self.graph.node):
            yield from node.output

    def _scale(self, ranges: list[tuple[float, float]]) -> Scale:
        low, high = min(0.0, *(r[0] for r in ranges)), max(0.0, *(r[1] for r in ranges))
        if not self.style.unsigned:
            return Scale(scale=max(abs(low), abs(high), 1e-8) / 127, zero=0)
        scale = max((high - low) / 255, 1e-8)
        return Scale(scale=scale, zero=int(np.clip(round(-low / scale), 0, 255)))

    def _pair(self, name: str, scale: Scale) -> str:
        """Put a Q and a DQ behind a tensor and return what the DQ gives."""
        kind = np.uint8 if self.style.unsigned else np.int8
        s = self._store(f"{name}::scale", np.array(max(scale.scale, self.style.floor), np.float32))
        z = self._store(f"{name}::zero", np.array(scale.zero, kind))
        self._node("QuantizeLinear", [name, s, z], f"{name}::q")
        return self._node("DequantizeLinear", [f"{name}::q", s, z], f"{name}::dq")

    def weights(self) -> None:
        """Store the layers' weights as int8, one scale an output channel, and biases if wanted."""
        for layer in self.layers:
            axis = 0 if layer.op_type == "Conv" or _transposed(layer) else 1
            weight = self.constants[layer.input[1]].astype(np.float32)
            stored, scale = quantize_weight(weight, axis=axis, limit=self.style.limit, floor=self.style.floor)
            base = f"{layer.name}::weight"
            s = self._store(f"{base}::scale", scale)
            z = self._store(f"{base}::zero", np.zeros(len(scale), np.int8))
            if self.style.float_weights:
                q = self._node("QuantizeLinear", [layer.input[1], s, z], f"{base}::q", axis=axis)
            else:
                q = self._store(f"{base}::q", stored)
            layer.input[1] = self._node("DequantizeLinear", [q, s, z], f"{base}::dq", axis=axis)
            if self.style.biases and len(layer.input) > 2 and layer.input[2]:
                self._bias(layer, scale)

    def _bias(self, layer: Any, weight_scale: NDArray[np.float32]) -> None:
        source = layer.input[0].removesuffix("::dq")
        scale = np.float32(max(self.scales[source].scale, self.style.floor)) * weight_scale
        bias = self.constants[layer.input[2]].astype(np.float64)
        stored = np.clip(np.rint(bias / scale), -(2**31), 2**31 - 1).astype(np.int32)
        base = f"{layer.name}::bias"
        q, s = self._store(f"{base}::q", stored), self._store(f"{base}::scale", scale)
        z = self._store(f"{base}::zero", np.zeros(len(scale), np.int32))
        layer.input[2] = self._node("DequantizeLinear", [q, s, z], f"{base}::dq", axis=0)

    def _store(self, name: str, value: NDArray[Any]) -> str:
        self.graph.initializer.append(self.numpy_helper.from_array(value, name))
        return name

    def _node(self, op: str, inputs: list[str], output: str, **attributes: int) -> str:
        self.new_nodes.append(self.helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def finish(self) -> None:
        """Sort the nodes so that each stands behind what it reads, and drop what nobody reads."""
        nodes = in_order([*self.graph.node, *self.new_nodes])
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        used = {i for n in nodes for i in n.input} | {o.name for o in self.graph.output}
        kept = [i for i in self.graph.initializer if i.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _nearest(node: Any) -> bool:
    modes = {a.name: a.s for a in node.attribute}
    return bool(node.op_type == "Resize" and modes.get("mode", b"nearest") == b"nearest")


def _transposed(node: Any) -> bool:
    return any(a.name == "transB" and a.i for a in node.attribute)


def quantize_weight(
    weight: NDArray[np.float32], *, axis: int, limit: int = 127, floor: float = 1e-12
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 weights and one float32 scale for each slice along `axis`, symmetric around 0."""
    others = tuple(k for k in range(weight.ndim) if k != axis)
    scale = np.maximum(np.abs(weight).max(axis=others) / limit, max(floor, 1e-12)).astype(np.float32)
    shape = [-1 if k == axis else 1 for k in range(weight.ndim)]
    stored = np.clip(np.rint(weight / scale.reshape(shape)), -limit, limit).astype(np.int8)
    return stored, scale
