"""Compute in half precision: fp16 weights and tensors, float32 at inputs and outputs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.core.records import Graph, Network
from edgekit.graph.onnx_file import arrays_of, read_onnx, save_onnx
from edgekit.graph.walk import in_order
from edgekit.passes.protocol import Change, Context, Pass

_LARGEST = 65504.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of to-fp16.

    Attributes:
        keep_ops: Operator types that stay in float32.
    """

    keep_ops: tuple[str, ...] = ()


class ToFp16:
    """ONNX Runtime's float16 converter, inputs and outputs kept in float32."""

    works_on = "onnx"
    settings = Settings
    needs_samples = False
    recodes = False
    summary = "compute in half precision, float32 at inputs and outputs"

    def run(self, network: Network, settings: Settings, context: Context) -> Change:
        """Write `<graph>.onnx` for each graph.

        Raises:
            RecipeError: A weight is larger than fp16 can hold.
        """
        convert = need("onnxruntime.transformers.float16", extra="host", why="convert to fp16")
        graphs = {}
        for name, graph in network.graphs.items():
            model = read_onnx(graph.path)
            _refuse_overflow(model, graph.path.name)
            blocked = [*convert.DEFAULT_OP_BLOCK_LIST, *settings.keep_ops]
            with warnings.catch_warnings():
                # It warns of every weight below 6e-8 that becomes zero; parity and accuracy judge that.
                warnings.simplefilter("ignore")
                half = convert.convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
            # The converter puts its input casts last; ONNX wants every node after what it reads.
            nodes = in_order(list(half.graph.node))
            del half.graph.node[:]
            half.graph.node.extend(nodes)
            path = context.out / f"{name}.onnx"
            save_onnx(half, path)
            graphs[name] = Graph(path=path, sha256=digest_file(path))
        source = {**network.source, "precision": "fp16"}
        return Change(network=replace(network, graphs=graphs, source=source), changed=True)


def _refuse_overflow(model: object, where: str) -> None:
    for name, value in arrays_of(model).items():
        if value.dtype == np.float32 and value.size and float(np.abs(value).max()) > _LARGEST:
            raise RecipeError(
                f"{where}: weight {name!r} reaches {float(np.abs(value).max()):.3g}, fp16 ends at {_LARGEST:g}",
                hint="Leave out the to-fp16 pass.",
            )


PLUGIN: Pass = ToFp16()
