"""Turn a detector's outputs into boxes, scores and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import RecipeError
from edgekit.core.records import Answers
from edgekit.frames.place import Placement

# Boxes that enter NMS at most. Beyond it, at scores from 0.001, mAP50 moved by under 0.0001.
_CANDIDATES = 6000


@dataclass(frozen=True, kw_only=True)
class Detections:
    """What was found, best score first.

    Attributes:
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels of the frame.
        scores: (N,) float32 in [0, 1].
        classes: (N,) int64.
        names: Class names by index; may be empty.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores)

    def plain(self) -> list[dict[str, object]]:
        """Return the detections as JSON knows them."""
        return [
            {
                "box": [round(float(v), 2) for v in box],
                "score": round(float(score), 4),
                "class": int(label),
                "name": self.names[label] if label < len(self.names) else "",
            }
            for box, score, label in zip(self.boxes, self.scores, self.classes, strict=True)
        ]


class Detect:
    """Decodes box and score outputs, then suppresses overlaps within each class."""

    layouts = ("yolov8", "yolov8-logits", "end-to-end")

    def answer(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        spec: Answers,
        placement: Placement,
        *,
        each_class: bool = False,
    ) -> Detections:
        """Return the detections of one frame.

        Args:
            outputs: The model's outputs by name; the first is decoded, of logits `boxes` and `scores`.
            spec: The declared post-processing.
            placement: Where the frame stands in the input.
            each_class: Let one anchor answer for several classes, as mAP is computed; an app
                wants the best class alone.

        Raises:
            RecipeError: The layout is unknown or the output does not have its shape.
        """
        raw = next(iter(outputs.values()))
        if spec.layout in {"yolov8", "yolov8-logits"}:
            found = (
                _decoded(raw, spec.score, each_class=each_class)
                if spec.layout == "yolov8"
                else _from_logits(outputs, spec, each_class=each_class)
            )
            keep = nms(found[0], found[2], spec.iou, spec.limit)
            boxes, scores, labels = found[0][keep], found[1][keep], found[2][keep]
        elif spec.layout == "end-to-end":
            boxes, scores, labels = _end_to_end(raw, spec)
        else:
            raise RecipeError(
                f"answers.layout: no {spec.layout!r}", hint=f"Layouts are: {', '.join(self.layouts)}."
            )
        return Detections(boxes=placement.to_frame(boxes), scores=scores, classes=labels, names=spec.classes)


Candidates = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


def _decoded(raw: NDArray[np.float32], score: float, *, each_class: bool) -> Candidates:
    """Return boxes (corners), scores and labels above `score`, best first, from (1, 4 + nc, anchors)."""
    if raw.ndim != 3 or raw.shape[0] != 1 or raw.shape[1] < 5:
        raise RecipeError(
            f"output: shape {raw.shape} is not (1, 4 + classes, anchors)", hint="Set answers.layout."
        )
    table = raw[0]
    anchors, scores, labels = _best(table[4:], score, each_class=each_class)
    x, y, w, h = table[:4, anchors]
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    return boxes.astype(np.float32), scores.astype(np.float32), labels


def _from_logits(
    outputs: Mapping[str, NDArray[np.float32]], spec: Answers, *, each_class: bool
) -> Candidates:
    """Return the same from box and class logits; only anchors above the threshold are decoded."""
    if not {"boxes", "scores"} <= set(outputs):
        raise RecipeError(
            f"outputs: {', '.join(outputs)} are not boxes and scores", hint="Set answers.layout: yolov8."
        )
    raw, table = outputs["boxes"], outputs["scores"]
    if raw.ndim != 3 or table.ndim != 3 or raw.shape[2] != sum(h * w for _, h, w in spec.levels):
        raise RecipeError(
            f"outputs: boxes {raw.shape} and scores {table.shape} are not the levels {spec.levels}",
            hint="Compile the bundle again.",
        )
    anchors, logits, labels = _best(table[0], _logit(spec.score), each_class=each_class)
    scores = 1 / (1 + np.exp(-logits.astype(np.float32)))
    return boxes_of(raw, spec.levels, anchors), scores.astype(np.float32), labels


def boxes_of(
    raw: NDArray[np.float32], levels: tuple[tuple[int, int, int], ...], anchors: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return (N, 4) x1 y1 x2 y2 in pixels of the input, decoded from box logits.

    A box side is the mean of its bins under their softmax, in strides from the anchor's middle (Generalized
    Focal Loss, arXiv 2006.04388, as YOLOv8 uses it).

    Args:
        raw: (1, 4 * bins, anchors), any float.
        levels: Stride, rows and columns of each level in the order of the anchors.
        anchors: (N,), which to decode.
    """
    bins = np.ascontiguousarray(raw[0][:, anchors], np.float32).reshape(4, raw.shape[1] // 4, -1)
    bins -= bins.max(1, keepdims=True)
    np.exp(bins, out=bins)
    steps = np.arange(bins.shape[1], dtype=np.float32)
    sides = np.einsum("sba,b->as", bins, steps) / bins.sum(1).T
    middles, strides = _places(levels, anchors)
    boxes = np.concatenate([middles - sides[:, :2], middles + sides[:, 2:]], 1) * strides[:, None]
    return boxes.astype(np.float32)


def _best(
    table: NDArray[np.float32], least: float, *, each_class: bool
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.int64]]:
    """Return anchors, values and labels above `least` of (classes, anchors), best first."""
    # Threshold before anything else: of 34,000 anchors a few hundred survive.
    if each_class:
        labels, anchors = np.nonzero(table > least)
        values = table[labels, anchors]
    else:
        best = table.max(0)
        anchors = np.flatnonzero(best > least)
        values, labels = best[anchors], table[:, anchors].argmax(0)
    order = np.argsort(-values, kind="stable")[:_CANDIDATES]
    return anchors[order], values[order], labels[order].astype(np.int64)


def _logit(score: float) -> float:
    if score <= 0:
        return -np.inf
    return float(np.log(score / (1 - score))) if score < 1 else np.inf


def _places(
    levels: tuple[tuple[int, int, int], ...], anchors: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the middle (N, 2) x y of each anchor in strides, and its stride (N,)."""
    ends = np.cumsum([h * w for _, h, w in levels])
    level = np.searchsorted(ends, anchors, side="right")
    strides, _, columns = (np.array(v) for v in zip(*levels, strict=True))
    place = anchors - np.concatenate([[0], ends[:-1]])[level]
    middles = np.stack([place % columns[level], place // columns[level]], 1) + 0.5
    return middles.astype(np.float32), strides[level].astype(np.float32)


def nms(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    iou: float,
    limit: int,
) -> NDArray[np.intp]:
    """Return indices of the boxes that stay, best first; classes do not suppress each other.

    Args:
        boxes: (N, 4) x1 y1 x2 y2, sorted by falling score.
        labels: (N,).
        iou: A box goes where a better one of its class overlaps it by more than this.
        limit: At most this many stay.
    """
    if not len(boxes):
        return np.empty(0, np.intp)
    # Moved apart by class, one pass serves all classes.
    apart = boxes + (labels * (float(boxes.max()) - float(boxes.min()) + 1))[:, None].astype(np.float32)
    x1, y1, x2, y2 = apart.T
    area = (x2 - x1) * (y2 - y1)
    waiting = np.arange(len(boxes))
    kept: list[Any] = []
    while len(waiting) and len(kept) < limit:
        first, rest = waiting[0], waiting[1:]
        kept.append(first)
        w = np.minimum(x2[first], x2[rest]) - np.maximum(x1[first], x1[rest])
        h = np.minimum(y2[first], y2[rest]) - np.maximum(y1[first], y1[rest])
        common = np.maximum(w, 0) * np.maximum(h, 0)
        waiting = rest[common <= iou * (area[first] + area[rest] - common)]
    return np.asarray(kept, np.intp)


def _end_to_end(raw: NDArray[np.float32], spec: Answers) -> Candidates:
    if raw.ndim != 3 or raw.shape[0] != 1 or raw.shape[2] != 6:
        raise RecipeError(f"output: shape {raw.shape} is not (1, detections, 6)", hint="Set answers.layout.")
    rows = raw[0][raw[0, :, 4] > spec.score]
    rows = rows[np.argsort(-rows[:, 4], kind="stable")[: spec.limit]]
    return rows[:, :4].astype(np.float32), rows[:, 4].astype(np.float32), rows[:, 5].astype(np.int64)


PLUGIN = Detect()
