"""Let a network take a sensor's packed codes: tables that turn bytes into values, before its first layer.

No bit operations, no powers, no logarithms: TensorRT before 10.2 has no BitShift, and the curve lives in the sensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.packing import group_of, packed_width, unpack
from edgekit.codecs.sensor_table import Table
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.graph.onnx_file import inputs_of
from edgekit.graph.walk import readers

INPUT = "codes"
# Every node of the front has a name that begins so: reports add up its time.
FRONT = "/sensor/"
_UINT8, _INT32, _FLOAT = 2, 6, 1


def with_front(model: Any, table: Table) -> Any:
    """Return a copy of a network that takes `codes`, uint8 (1, C, H, bytes a row), instead of its values.

    Args:
        model: Takes one float32 input: (1, 3, H, W) behind a mosaic, whose greens are averaged (its planes are H x W),
            (1, C, H, W) behind one plane, (1, axes, samples) behind a time series.
        table: Which codes.

    Raises:
        RecipeError: The network's input is not what the table's values become.
    """
    onnx = need("onnx", extra="host")
    (given,) = inputs_of(model)
    wanted = network_shape(table)
    if given.shape != wanted or given.dtype != "float32":
        raise RecipeError(
            f"passes.gamma-quant: the model takes {list(given.shape)} {given.dtype}, the sensor gives {list(wanted)}",
            hint="Train the model on this sensor's data, at this size.",
        )
    done = onnx.ModelProto()
    done.CopyFrom(model)
    front = _Front(done, given.name)
    values = front.unpacked(table)
    if table.sensor.axes:
        values = front.node("Reshape", [values, front.ints("series", wanted)], "series")
    if table.sensor.mosaic and not _folded(done, given.name):
        values = front.colours(values)
    front.rename(values)
    shape = (1, table.sensor.channels, table.height, packed_width(table.width, table.bits))
    coded = onnx.helper.make_tensor_value_info(INPUT, _UINT8, list(shape))
    others = [v for v in done.graph.input if v.name != given.name]
    nodes = [*front.nodes, *done.graph.node]
    del done.graph.input[:], done.graph.node[:], done.graph.value_info[:]
    done.graph.input.extend([coded, *others])
    done.graph.node.extend(nodes)
    return onnx.shape_inference.infer_shapes(done)


def network_shape(table: Table) -> tuple[int, ...]:
    """Return the shape of the values that a network sees behind a table."""
    if table.sensor.axes:
        return (1, len(table.sensor.axes), table.width)
    return (1, 3 if table.sensor.mosaic else 1, table.height, table.width)


def byte_tables(table: Table) -> list[NDArray[np.float32]]:
    """Return what a byte adds to each value that it holds bits of.

    Where codes divide a byte, one table (256, codes a byte) of whole values. Otherwise a code lies in up to three
    bytes: a table (codes of a group * 256,) for its first, second and third, whose sum is the value.
    """
    scale, offset = np.float32(table.scale), np.float32(table.offset)
    if 8 % table.bits == 0:
        every = np.arange(256, dtype=np.uint8)[:, None]
        return [unpack(every, table.bits, 8 // table.bits).astype(np.float32) * scale + offset]
    codes, _ = group_of(table.bits)
    byte, mask, found = np.arange(256, dtype=np.int64), (1 << table.bits) - 1, []
    for part in range(_parts(table.bits)):
        rows = []
        for k in range(codes):
            shift = k * table.bits % 8
            # The part's byte stands 8 * part bits above the first one's.
            share = ((byte << (8 * part)) >> shift) & mask if 8 * part < shift + table.bits else byte * 0
            rows.append(share.astype(np.float32) * scale + (offset if part == 0 else np.float32(0)))
        found.append(np.concatenate(rows).astype(np.float32))
    return found


def _parts(bits: int) -> int:
    """Return the most bytes that one code lies in."""
    codes, _ = group_of(bits)
    return max((k * bits % 8 + bits + 7) // 8 for k in range(codes))


class _Front:
    """Collects the nodes before a network."""

    def __init__(self, model: Any, old: str) -> None:
        self._onnx, self._arrays = need("onnx", extra="host"), need("onnx.numpy_helper", extra="host")
        self._model, self._old = model, old
        self.nodes: list[Any] = []

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node and return its output."""
        out = f"{FRONT}{name}"
        self.nodes.append(self._onnx.helper.make_node(op, inputs, [out], name=out, **attributes))
        return out

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer and return its name."""
        full = f"{FRONT}{name}:constant"
        self._model.graph.initializer.append(self._arrays.from_array(value, full))
        return full

    def ints(self, name: str, values: tuple[int, ...]) -> str:
        """Add an int64 initializer and return its name."""
        return self.constant(name, np.array(values, np.int64))

    def unpacked(self, table: Table) -> str:
        """Return the values (1, C, H, W) of the codes."""
        # TensorRT converts bytes to floats alone; every byte is whole in fp16, too.
        index = self.node("Cast", [self.node("Cast", [INPUT], "float", to=_FLOAT)], "bytes", to=_INT32)
        tables = byte_tables(table)
        if len(tables) == 1:
            return self._even(table, index, tables[0])
        _, size = group_of(table.bits)
        codes, rows = group_of(table.bits)[0], packed_width(table.width, table.bits)
        place = np.arange(table.width)
        group = (place % codes).astype(np.int32) * 256
        total = ""
        for part, one in enumerate(tables):
            first = place // codes * size + place % codes * table.bits // 8
            at = np.minimum(first + part, rows - 1).astype(np.int32)
            byte = self.node("Gather", [index, self.constant(f"at{part}", at)], f"byte{part}", axis=3)
            row = self.node("Add", [byte, self.constant(f"group{part}", group)], f"row{part}")
            value = self.node("Gather", [self.constant(f"table{part}", one), row], f"part{part}", axis=0)
            total = self.node("Add", [total, value], f"sum{part}") if total else value
        return total

    def _even(self, table: Table, index: str, values: NDArray[np.float32]) -> str:
        share = values.shape[1]
        if share == 1:
            return self.node("Gather", [self.constant("table", values[:, 0]), index], "values", axis=0)
        pairs = self.node("Gather", [self.constant("table", values), index], "pairs", axis=0)
        rows = packed_width(table.width, table.bits) * share
        shape = (1, table.sensor.channels, table.height, rows)
        values_ = self.node("Reshape", [pairs, self.ints("shape", shape)], "values")
        if rows == table.width:
            return values_
        cut = [self.ints(n, (v,)) for n, v in (("from", 0), ("to", table.width), ("axis", 3))]
        return self.node("Slice", [values_, *cut], "cut")

    def colours(self, values: str) -> str:
        """Return red, the mean of the greens, and blue of four planes."""
        mix = np.array([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]], np.float32).reshape(3, 4, 1, 1)
        return self.node("Conv", [values, self.constant("mix", mix)], "colours")

    def rename(self, values: str) -> None:
        """Let the network read the front's values."""
        for node in self._model.graph.node:
            node.input[:] = [values if i == self._old else i for i in node.input]


def _folded(model: Any, name: str) -> bool:
    """Let a first convolution read four planes by giving each green half its weights; whether that could be."""
    numpy_helper = need("onnx.numpy_helper", extra="host")
    found = readers(model.graph)[name]
    if len(found) != 1 or found[0].op_type != "Conv" or found[0].input[0] != name:
        return False
    weights = next((i for i in model.graph.initializer if i.name == found[0].input[1]), None)
    if weights is None or len(readers(model.graph)[weights.name]) != 1:
        return False
    array = numpy_helper.to_array(weights)
    if array.shape[1] != 3:
        return False
    four = np.concatenate([array[:, :1], array[:, 1:2] / 2, array[:, 1:2] / 2, array[:, 2:]], 1)
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(four, array.dtype), weights.name))
    return True
