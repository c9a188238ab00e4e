"""Write half precision into a graph: every float tensor says whether it is fp16 or float32.

What a strongly typed engine runs is what the graph says (TensorRT 10 with STRONGLY_TYPED, TensorRT 11), so
casts stand where the type changes and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.core.lazy import need
from edgekit.graph.onnx_file import arrays_of
from edgekit.graph.walk import in_order

# Sums and exponentials over many values: a hundredth of the time, most of the error.
FULL = frozenset({
    "LayerNormalization", "GroupNormalization", "InstanceNormalization", "ReduceMean", "ReduceSum", "ReduceSumSquare",
    "ReduceL2", "Pow", "Sqrt", "Exp", "Log", "CumSum", "NonMaxSuppression", "TopK", "RoiAlign", "Range",
})  # fmt: skip
# Inputs that ONNX defines as float32 whatever the tensor is: Resize's region and scales.
_ALWAYS_FULL = {"Resize": (1, 2), "Upsample": (1,)}
_FLOAT, _HALF = 1, 10
_LARGEST = 65504.0
# The smallest normal fp16, 2^-14: a scale below becomes zero or loses its digits.
SCALE_FLOOR = 2.0**-14
# The smallest of all: half of it and less becomes zero.
_SMALLEST = 2.0**-24


def strongly_typed(model: Any) -> Any:
    """Return a copy that computes in fp16, inputs and outputs kept in their types.

    Nodes of `FULL` and those whose constants do not fit into fp16 stay in float32.

    Args:
        model: Float32 or with QuantizeLinear and DequantizeLinear, opset 19 or later where it has these;
            static shapes, named nodes.
    """
    onnx = need("onnx", extra="host")
    done = onnx.ModelProto()
    done.CopyFrom(onnx.shape_inference.infer_shapes(model, data_prop=True))
    _Writer(done).write()
    # What shape inference said of the types does not hold any more.
    del done.graph.value_info[:]
    return done


class _Writer:
    """Holds the graph while casts are put in; used once."""

    def __init__(self, model: Any) -> None:
        self.helper, self.numpy_helper = (
            need("onnx.helper", extra="host"), need("onnx.numpy_helper", extra="host"),
        )  # fmt: skip
        self.graph = model.graph
        _constants_to_initializers(model)
        self.arrays = arrays_of(model)
        known = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        self.floats = {v.name for v in known if v.type.tensor_type.elem_type == _FLOAT}
        self.floats |= {n for n, a in self.arrays.items() if a.dtype == np.float32}
        # The type each float tensor has now; inputs keep theirs.
        self.types = {v.name: _FLOAT for v in self.graph.input if v.name in self.floats}
        self.nodes: list[Any] = []
        self.made: dict[tuple[str, int], str] = {}

    def write(self) -> None:
        """Give each node its type and put casts between those that differ."""
        for node in in_order(list(self.graph.node)):
            self._one(node)
        for value in self.graph.output:
            if self.types.get(value.name) == _HALF:
                self._output(value.name)
        del self.graph.node[:]
        self.graph.node.extend(in_order(self.nodes))
        used = {i for n in self.nodes for i in n.input} | {o.name for o in self.graph.output}
        kept = [i for i in self.graph.initializer if i.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _one(self, node: Any) -> None:
        kind = _FLOAT if self._stays(node) else _HALF
        always = _ALWAYS_FULL.get(node.op_type, ())
        for k, name in enumerate(node.input):
            if name in self.floats:
                node.input[k] = self._as(name, _FLOAT if k in always else kind)
        if node.op_type == "Cast":
            self._cast(node, kind)
        elif node.op_type == "ConstantOfShape" and kind == _HALF:
            _retype_value(node, self.numpy_helper)
        for name in node.output:
            if name in self.floats:
                self.types[name] = kind
        self.nodes.append(node)

    def _stays(self, node: Any) -> bool:
        if node.op_type in FULL:
            return True
        stored = [self.arrays[i] for i in node.input if i in self.arrays and i in self.floats]
        return any(_leaves_half(a) for a in stored)

    def _cast(self, node: Any, kind: int) -> None:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = kind

    def _as(self, name: str, kind: int) -> str:
        """Return the tensor of that name in one type, cast or stored where it has the other."""
        if self.types.get(name, _FLOAT) == kind:
            return name
        if (name, kind) not in self.made:
            new = f"{name}::fp{16 if kind == _HALF else 32}"
            if name in self.arrays:
                half = self.arrays[name].astype(np.float16)
                self.graph.initializer.append(self.numpy_helper.from_array(half, new))
            else:
                self.nodes.append(self.helper.make_node("Cast", [name], [new], name=new, to=kind))
            self.made[name, kind] = new
        return self.made[name, kind]

    def _output(self, name: str) -> None:
        """Let an output that is fp16 now be cast to float32 under its own name."""
        inner = f"{name}::half"
        for node in self.nodes:
            node.output[:] = [inner if o == name else o for o in node.output]
            node.input[:] = [inner if i == name else i for i in node.input]
        self.nodes.append(self.helper.make_node("Cast", [inner], [name], name=f"{name}::fp32", to=_FLOAT))


def _leaves_half(values: Any) -> bool:
    """Return whether a constant does not fit into fp16: too large, or not zero and zero there (an epsilon)."""
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size:
        return False
    # Single tiny weights among many are no loss; a constant that vanishes as a whole is.
    return float(sizes.max()) > _LARGEST or 0.0 < float(sizes.max()) <= _SMALLEST / 2


def _constants_to_initializers(model: Any) -> None:
    """Store what Constant nodes hold beside the other weights."""
    numpy_helper = need("onnx.numpy_helper", extra="host")
    stored = {i.name for i in model.graph.initializer}
    arrays: Mapping[str, Any] = arrays_of(model)
    kept = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in arrays:
            if node.output[0] not in stored:
                model.graph.initializer.append(
                    numpy_helper.from_array(arrays[node.output[0]], node.output[0])
                )
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _retype_value(node: Any, numpy_helper: Any) -> None:
    if not any(a.name == "value" for a in node.attribute):
        # Without one it makes float32 zeros.
        helper = need("onnx.helper", extra="host")
        node.attribute.append(
            helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float16)))
        )
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type == _FLOAT:
            attribute.t.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16))
            )
