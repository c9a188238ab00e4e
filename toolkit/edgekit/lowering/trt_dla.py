"""Find what the deep-learning accelerator of a Jetson cannot run, so that layers would move to the GPU.

Layer lists and limits: NVIDIA's DLA pages and its Deep-Learning-Accelerator-SW repository (Orin).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgekit.graph.onnx_file import arrays_of
from edgekit.lowering.trt_lint import ERROR, NOTE, WARNING, Facts, Finding

_NATIVE = frozenset({
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Relu", "Sigmoid", "Tanh",
    "Clip", "LeakyRelu", "PRelu", "Add", "Sub", "Mul", "Max", "Concat", "Slice", "Split", "Resize", "Reshape", "Transpose",
    "Softmax", "LRN", "BatchNormalization", "Equal", "Gemm", "MatMul", "Identity", "Constant", "Cast",
    "QuantizeLinear", "DequantizeLinear",
})  # fmt: skip
_LARGEST_SIDE, _LARGEST_BATCH, _LOADABLES = 8192, 4096, 16


def _operators(facts: Facts) -> Iterator[Finding]:
    for node in facts.graph.node:
        if node.op_type not in _NATIVE:
            yield Finding(
                rule="dla-operator", severity=WARNING, node=node.name, what=f"{node.op_type} does not run on the DLA: it moves to the GPU, with copies",
                todo="Cut the graph before it, or accept the fallback.",
            )  # fmt: skip
        elif node.op_type in {"Gemm", "MatMul"} and not facts.constant(node.input[1]):
            yield Finding(
                rule="dla-operator", severity=WARNING, node=node.name, what="the second operand is computed: it moves to the GPU",
                todo="Run attention on the GPU.",
            )  # fmt: skip


def _sizes(facts: Facts) -> Iterator[Finding]:
    for node in facts.graph.node:
        shape = facts.shapes.get(node.output[0], ())
        if -1 in shape:
            yield Finding(
                rule="dla-dynamic",
                severity=ERROR,
                node=node.name,
                what=f"shape {shape} is not static",
                todo="The DLA needs static shapes.",
            )
        elif shape and (shape[0] > _LARGEST_BATCH or any(s > _LARGEST_SIDE for s in shape[1:])):
            yield Finding(
                rule="dla-size", severity=WARNING, node=node.name, what=f"shape {shape}: sides end at {_LARGEST_SIDE}, batches at {_LARGEST_BATCH}",
                todo="It moves to the GPU.",
            )  # fmt: skip


def _explicit(facts: Facts) -> Iterator[Finding]:
    """Q/DQ, which the DLA knows from TensorRT 11.4.1 on."""
    if facts.target.version >= (11, 4):
        return
    for node in facts.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            yield Finding(
                rule="dla-qdq", severity=ERROR, node=node.name, what="the DLA knows no Q/DQ up to TensorRT 10.7",
                todo="Compile with --dla: scales then go into a calibration cache.",
            )  # fmt: skip
            return


def _loadables(facts: Facts) -> Iterator[Finding]:
    """How often the graph leaves and enters the DLA: at most 16 loadables on a core."""
    parts = _parts(facts.graph.node, facts.arrays)
    on_dla = sum(len(p) for p in parts)
    if len(parts) > 1:
        yield Finding(
            rule="dla-switches", severity=WARNING, node="model", what=f"up to {len(parts)} parts run on the DLA, {_LOADABLES} fit on a core",
            todo="Cut off what it cannot run; a compile leaves the parts with the fewest weights to the GPU.",
        )  # fmt: skip
    elif on_dla:
        yield Finding(
            rule="dla-share",
            severity=NOTE,
            node="model",
            what=f"{on_dla} of {len(facts.graph.node)} nodes can run on the DLA",
            todo="Nothing.",
        )


def _parts(nodes: Iterable[Any], arrays: Mapping[str, Any]) -> list[list[Any]]:
    """Return the runs of neighbouring nodes that the DLA knows, constants and casts aside."""
    parts: list[list[Any]] = []
    inside = False
    for node in nodes:
        if node.op_type in {"Constant", "Cast"}:
            continue
        product = node.op_type in {"Gemm", "MatMul"} and node.input[1] not in arrays
        native = node.op_type in _NATIVE and not product
        if native and not inside:
            parts.append([])
        if native:
            parts[-1].append(node)
        inside = native
    return parts


def left_to_gpu(model: Any) -> list[str]:
    """Return the nodes that shall stay on the GPU so that the DLA gets no more parts than fit on a core.

    The parts with most weights go to the DLA: more loadables than 16 do not run at once.
    """
    arrays = arrays_of(model)
    parts = _parts(model.graph.node, arrays)

    def weights(part: list[Any]) -> int:
        return sum(arrays[i].size for n in part for i in n.input if i in arrays)

    ranked = sorted(parts, key=weights, reverse=True)
    return [n.name for part in ranked[_LOADABLES:] for n in part]


dla_rules: tuple[Callable[[Facts], Iterator[Finding]], ...] = (_operators, _sizes, _explicit, _loadables)
