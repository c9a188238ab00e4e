"""Find what the deep-learning accelerator of a Jetson cannot run, so that layers would move to the GPU.

Layer lists and limits: NVIDIA's DLA pages and its Deep-Learning-Accelerator-SW repository (Orin).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
    on_dla, changes, last = 0, 0, ""
    for node in facts.graph.node:
        unit = "DLA" if node.op_type in _NATIVE else "GPU"
        changes += unit != last and unit == "DLA"
        on_dla += unit == "DLA"
        last = unit
    if changes > 1:
        severity = WARNING if changes <= _LOADABLES else ERROR
        yield Finding(
            rule="dla-switches", severity=severity, node="model", what=f"up to {changes} parts run on the DLA, {_LOADABLES} fit on a core",
            todo="Cut off the parts that it cannot run.",
        )  # fmt: skip
    elif on_dla:
        yield Finding(
            rule="dla-share",
            severity=NOTE,
            node="model",
            what=f"{on_dla} of {len(facts.graph.node)} nodes can run on the DLA",
            todo="Nothing.",
        )


dla_rules: tuple[Callable[[Facts], Iterator[Finding]], ...] = (_operators, _sizes, _explicit, _loadables)
