"""Compute mean average precision with pycocotools."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need

# pycocotools' default of 100 detections an image hides what dense scenes are about.
LIMIT = 300
SCORE = 0.001
BANDS = (8.0, 16.0, 32.0)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The labels of one image: boxes (N, 4) x1 y1 x2 y2 in pixels, classes and crowd flags (N,)."""

    width: int
    height: int
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The detections of one image: boxes (N, 4) x1 y1 x2 y2 in pixels, scores and classes (N,)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Average precision as shares from 0 to 1.

    Attributes:
        map50: Mean over classes at IoU 0.5.
        map50_95: Mean over classes and IoU 0.5 to 0.95 in steps of 0.05.
        by_class: AP at IoU 0.5 by class name.
        by_size: AP at IoU 0.5 by the square root of the box's area in pixels, "8-16" for 8 to 16.
        images: How many images were judged.
    """

    map50: float
    map50_95: float
    by_class: dict[str, float] = field(default_factory=dict)
    by_size: dict[str, float] = field(default_factory=dict)
    images: int = 0

    def value(self, metric: str) -> float:
        """Return `map50` or `map50_95`."""
        found: float = getattr(self, metric)
        return found


def score(
    truths: Sequence[Truth], found: Sequence[Found], names: Sequence[str], *, bands: Sequence[float] = BANDS
) -> Scores:
    """Return the scores of detections against labels, image by image in the same order.

    Args:
        truths: Labels.
        found: Detections.
        names: Class names.
        bands: Object sizes in pixels at which AP is split, rising.
    """
    edges = (0.0, *bands, 1e5)
    ranges = tuple(itertools.pairwise(edges))
    judged = evaluate(truths, found, len(names), bands=ranges)
    precision = judged.eval["precision"]
    return Scores(
        map50=_mean(precision[0, :, :, 0, 0]),
        map50_95=_mean(precision[:, :, :, 0, 0]),
        by_class={name: _mean(precision[0, :, k, 0, 0]) for k, name in enumerate(names)},
        by_size={_band(b): _mean(precision[0, :, :, k + 1, 0]) for k, b in enumerate(ranges)},
        images=len(truths),
    )


def _band(band: tuple[float, float]) -> str:
    low, high = band
    if low == 0:
        return f"under {high:g}"
    return f"over {low:g}" if high >= 1e5 else f"{low:g}-{high:g}"


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean of what was defined; pycocotools marks classes without labels with -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else 0.0


def evaluate(
    truths: Sequence[Truth],
    found: Sequence[Found],
    classes: int,
    *,
    bands: Sequence[tuple[float, float]] = (),
) -> Any:
    """Return pycocotools' evaluation, matched and accumulated: area range 0 is all sizes, then the bands."""
    coco = need("pycocotools.coco", extra="host", why="compute mAP")
    cocoeval = need("pycocotools.cocoeval", extra="host")
    with contextlib.redirect_stdout(io.StringIO()):
        labels = coco.COCO()
        labels.dataset = _dataset(truths, classes)
        labels.createIndex()
        rows = _rows(found)
        answers = labels.loadRes(rows) if rows else coco.COCO()
        if not rows:
            answers.dataset = {**labels.dataset, "annotations": []}
            answers.createIndex()
        judged = cocoeval.COCOeval(labels, answers, "bbox")
        judged.params.maxDets = [LIMIT]
        areas = [(0.0, 1e10), *((a * a, b * b) for a, b in bands)]
        judged.params.areaRng = [list(a) for a in areas]
        judged.params.areaRngLbl = [str(k) for k in range(len(areas))]
        judged.evaluate()
        judged.accumulate()
    return judged


def _dataset(truths: Sequence[Truth], classes: int) -> dict[str, Any]:
    images: list[dict[str, int]] = []
    marks: list[dict[str, Any]] = []
    for k, truth in enumerate(truths, 1):
        images.append({"id": k, "width": truth.width, "height": truth.height})
        for (x1, y1, x2, y2), label, crowd in zip(truth.boxes, truth.classes, truth.crowd, strict=True):
            marks.append(
                {
                    "id": len(marks) + 1, "image_id": k, "category_id": int(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": int(crowd),
                }
            )  # fmt: skip
    categories = [{"id": k + 1, "name": str(k)} for k in range(classes)]
    return {"info": {}, "images": images, "annotations": marks, "categories": categories}


def _rows(found: Sequence[Found]) -> list[dict[str, Any]]:
    rows = []
    for k, one in enumerate(found, 1):
        for (x1, y1, x2, y2), value, label in zip(one.boxes, one.scores, one.classes, strict=True):
            rows.append(
                {
                    "image_id": k, "category_id": int(label) + 1, "score": float(value),
                    "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                }
            )  # fmt: skip
    return rows


def drop_interval(
    truths: Sequence[Truth],
    reference: Sequence[Found],
    other: Sequence[Found],
    classes: int,
    *,
    metric: str = "map50",
    rounds: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of the drop (reference minus other) by a paired bootstrap over images."""
    pair = [evaluate(truths, found, classes) for found in (reference, other)]
    rng, drops = np.random.default_rng(seed), []
    for _ in range(rounds):
        chosen = rng.integers(0, len(truths), len(truths))
        first, second = (_resampled(judged, chosen, classes, metric) for judged in pair)
        drops.append(first - second)
    low, high = np.quantile(drops, [0.025, 0.975])
    return float(low), float(high)


def _resampled(judged: Any, chosen: NDArray[np.int64], classes: int, metric: str) -> float:
    """Return the metric over a resample of the images, from what was matched once."""
    images = len(judged.params.imgIds)
    values = []
    for c in range(classes):
        rows = [judged.evalImgs[c * images + int(k)] for k in chosen]
        values.append(_average_precision([r for r in rows if r is not None], metric))
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else 0.0


def _average_precision(rows: list[Any], metric: str) -> float | None:
    """Return COCO's 101-point AP of one class, None where it has no labels."""
    wanted = int(sum((np.asarray(r["gtIgnore"]) == 0).sum() for r in rows))
    if not wanted:
        return None
    scores = np.concatenate([r["dtScores"] for r in rows])
    order = np.argsort(-scores, kind="mergesort")
    matches = np.concatenate([r["dtMatches"] for r in rows], 1)[:, order]
    ignored = np.concatenate([r["dtIgnore"] for r in rows], 1)[:, order]
    picked = slice(0, 1) if metric == "map50" else slice(None)
    return float(
        np.mean([_area_under(m, i, wanted) for m, i in zip(matches[picked], ignored[picked], strict=True)])
    )


def _area_under(match: NDArray[Any], ignore: NDArray[Any], wanted: int) -> float:
    keep = ~ignore.astype(bool)
    hit = match[keep] > 0
    right = np.cumsum(hit)
    if not len(right):
        return 0.0
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(right / wanted, np.linspace(0, 1, 101), side="left")
    inside = place < len(precision)
    return float(precision[place[inside]].sum() / 101)
