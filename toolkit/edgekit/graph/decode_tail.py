"""Cut the box decoder off a detector's graph: box and class logits out, decoded in float on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.core.lazy import need
from edgekit.graph.onnx_file import inputs_of
from edgekit.graph.walk import makers, readers

# Strides of a detector's levels, by which the number of anchors is told apart.
_LEVELS = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64), (4, 8, 16), (8, 16))
_PASSING = frozenset({"Transpose", "Reshape", "Identity"})
BOXES, SCORES = "boxes", "scores"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A graph without its decoder.

    Attributes:
        model: Gives `boxes` (1, 4 * bins, anchors) and `scores` (1, classes, anchors), both logits.
        levels: Stride, rows and columns of each level, in the order of the anchors.
    """

    model: Any
    levels: tuple[tuple[int, int, int], ...]


def cut_decoder(model: Any) -> Cut | None:
    """Return the graph cut before YOLOv8's decoder, None where it has no such decoder.

    The decoder is what follows the last convolutions: a Softmax over the bins of each box side, their
    mean, anchors and strides, a Sigmoid on the scores, one Concat. The caller proves on real inputs that
    the answers stay the same (anchors could lie elsewhere).

    Args:
        model: Static shapes, inferred for every tensor.
    """
    made = makers(model.graph)
    last = made.get(model.graph.output[0].name) if len(model.graph.output) == 1 else None
    if last is None or last.op_type != "Concat":
        return None
    sigmoids = [made[i] for i in last.input if i in made and made[i].op_type == "Sigmoid"]
    softmaxes = [n for n in model.graph.node if n.op_type == "Softmax"]
    shapes = _shapes(model)
    if len(sigmoids) != 1 or not softmaxes:
        return None
    scores = sigmoids[0].input[0]
    boxes = _before(softmaxes[-1].input[0], made)
    box_shape, score_shape = shapes.get(boxes, ()), shapes.get(scores, ())
    if len(box_shape) != 3 or box_shape[1] % 4 or len(score_shape) != 3 or box_shape[2] != score_shape[2]:
        return None
    size = inputs_of(model)[0].shape[2:]
    levels = levels_of(box_shape[2], size)
    if not levels or not _only_decoder(model, {boxes, scores}):
        return None
    return Cut(model=_extracted(model, boxes, scores), levels=levels)


def levels_of(anchors: int, size: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Return stride, rows and columns of each level of a detector with so many anchors, else nothing."""
    for strides in _LEVELS:
        found = tuple((s, size[0] // s, size[1] // s) for s in strides)
        if sum(h * w for _, h, w in found) == anchors:
            return found
    return ()


def _before(name: str, made: dict[str, Any]) -> str:
    """Return the tensor before the reshapes that lead to `name`."""
    while name in made and made[name].op_type in _PASSING:
        name = made[name].input[0]
    return name


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    known = (*model.graph.value_info, *model.graph.output)
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in known}


def _only_decoder(model: Any, cuts: set[str]) -> bool:
    """Return whether nothing with weights lies behind the cut but the mean over a side's bins."""
    onnx_arrays = {i.name: i for i in model.graph.initializer}
    behind, waiting = set(), [n for c in cuts for n in readers(model.graph)[c]]
    reads = readers(model.graph)
    while waiting:
        node = waiting.pop()
        if node.name in behind:
            continue
        behind.add(node.name)
        if node.op_type == "Conv":
            weight = onnx_arrays.get(node.input[1])
            if weight is None or weight.dims[0] != 1:
                return False
        waiting += [r for o in node.output for r in reads[o]]
    return True


def _extracted(model: Any, boxes: str, scores: str) -> Any:
    """Return the part of the graph before two tensors, these named as the outputs."""
    onnx = need("onnx", extra="host")
    utils = need("onnx.utils", extra="host")
    names = [v.name for v in inputs_of(model)]
    part = utils.Extractor(model).extract_model(names, [boxes, scores])
    renamed = {boxes: BOXES, scores: SCORES}
    for node in part.graph.node:
        node.input[:] = [renamed.get(n, n) for n in node.input]
        node.output[:] = [renamed.get(n, n) for n in node.output]
    for value in (*part.graph.output, *part.graph.value_info):
        value.name = renamed.get(value.name, value.name)
    part.metadata_props.extend(model.metadata_props)
    onnx.checker.check_model(part)
    return part
