"""Compute mean average precision with pycocotools; the matching is our own, equal to its to the bit."""

from __future__ import annotations

import contextlib
import functools
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
    with contextlib.redirect_stdout(io.StringIO()):
        labels = coco.COCO()
        labels.dataset = _dataset(truths, classes)
        labels.createIndex()
        rows = _rows(found)
        answers = labels.loadRes(rows) if rows else coco.COCO()
        if not rows:
            answers.dataset = {**labels.dataset, "annotations": []}
            answers.createIndex()
        judged = _matcher()(labels, answers, "bbox")
        judged.params.maxDets = [LIMIT]
        areas = [(0.0, 1e10), *((a * a, b * b) for a, b in bands)]
        judged.params.areaRng = [list(a) for a in areas]
        judged.params.areaRngLbl = [str(k) for k in range(len(areas))]
        judged.evaluate()
        judged.accumulate()
    return judged


@functools.cache
def _matcher() -> Any:
    """Return pycocotools' COCOeval with its matching of one image and class done over possible pairs alone."""
    cocoeval = need("pycocotools.cocoeval", extra="host")

    class Matcher(cocoeval.COCOeval):  # type: ignore[misc, name-defined]
        def evaluateImg(self, image: int, label: int, area: Any, limit: int) -> Any:  # noqa: N802 - its name
            marks, found = self._gts[image, label], self._dts[image, label]
            if not marks and not found:
                return None
            outside = np.array(
                [bool(g["ignore"]) or not area[0] <= g["area"] <= area[1] for g in marks], bool
            )
            # Labels that count come first: a detection takes an ignored one only where no other fits.
            first = np.argsort(outside, kind="stable")
            ranked = np.argsort([-d["score"] for d in found], kind="stable")[:limit]
            marks, found, outside = [marks[k] for k in first], [found[k] for k in ranked], outside[first]
            overlaps = np.zeros((len(found), len(marks)))
            if overlaps.size:
                overlaps = np.asarray(self.ious[image, label])[:, first]
            pairs = matched(overlaps, self.params.iouThrs, outside, [bool(g["iscrowd"]) for g in marks])
            # A detection without a label has -1, which reads the last of each: no id, not ignored.
            own, ignored = np.array([*(g["id"] for g in marks), 0]), np.append(outside, [False])
            far = np.array([not area[0] <= d["area"] <= area[1] for d in found], bool)
            return {
                "image_id": image, "category_id": label, "aRng": area, "maxDet": limit,
                "dtMatches": own[pairs].astype(float), "dtScores": [d["score"] for d in found],
                "gtIgnore": outside.astype(int), "dtIgnore": ignored[pairs] | ((pairs < 0) & far),
            }  # fmt: skip

    return Matcher


def matched(
    overlaps: NDArray[np.float64], thresholds: NDArray[np.float64], ignored: NDArray[np.bool_], crowd: Sequence[bool]
) -> NDArray[np.int64]:  # fmt: skip
    """Return the label that each detection takes at each threshold, (T, D), -1 for none: COCO's greedy rule.

    The best detection chooses first; it takes the label of the largest overlap that is free, an ignored one
    only where no other reaches the threshold, the last of equals.

    Args:
        overlaps: (D, G), detections by falling score, labels that count before ignored ones.
        thresholds: (T,).
        ignored: (G,) labels that count neither way.
        crowd: (G,) labels that any number may take.
    """
    pairs = np.full((len(thresholds), len(overlaps)), -1, np.int64)
    if not overlaps.size:
        return pairs
    # Most detections overlap nothing enough at any threshold.
    able = np.flatnonzero(overlaps.max(1) >= thresholds.min())
    near = [
        (d, [(int(g), float(overlaps[d, g])) for g in np.flatnonzero(overlaps[d] >= thresholds.min())])
        for d in able
    ]
    for t, threshold in enumerate(thresholds):
        taken: set[int] = set()
        for d, labels in near:
            best, most = -1, min(float(threshold), 1 - 1e-10)
            for g, overlap in labels:
                if (g in taken and not crowd[g]) or overlap < most:
                    continue
                if best >= 0 and ignored[g] and not ignored[best]:
                    break
                best, most = g, overlap
            if best >= 0:
                taken.add(best)
                pairs[t, d] = best
    return pairs


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
    pair = [_tables(evaluate(truths, found, classes), classes, metric) for found in (reference, other)]
    rng, drops = np.random.default_rng(seed), []
    for _ in range(rounds):
        counts = np.bincount(rng.integers(0, len(truths), len(truths)), minlength=len(truths))
        first, second = (_resampled(tables, counts) for tables in pair)
        drops.append(first - second)
    low, high = np.quantile(drops, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """All detections of one class by falling score: image (D,), hit and kept (T, D); labels by image."""

    image: NDArray[np.int64]
    hit: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    labels: NDArray[np.int64]


def _tables(judged: Any, classes: int, metric: str) -> list[_Table]:
    """Return what pycocotools matched, a table for each class that has labels or detections."""
    picked = slice(0, 1) if metric == "map50" else slice(None)
    images = len(judged.params.imgIds)
    found = []
    for label in range(classes):
        rows = judged.evalImgs[label * images : (label + 1) * images]
        some = [(k, r) for k, r in enumerate(rows) if r is not None]
        if not some:
            continue
        order = np.argsort(-np.concatenate([r["dtScores"] for _, r in some]), kind="stable")
        found.append(
            _Table(
                image=np.concatenate([np.full(len(r["dtScores"]), k) for k, r in some])[order],
                hit=np.concatenate([r["dtMatches"][picked] > 0 for _, r in some], 1)[:, order],
                kept=~np.concatenate([r["dtIgnore"][picked] for _, r in some], 1)[:, order],
                labels=np.array([0 if r is None else int((r["gtIgnore"] == 0).sum()) for r in rows]),
            )
        )
    return found


def _resampled(tables: Sequence[_Table], counts: NDArray[np.int64]) -> float:
    """Return the metric where each image counts as often as it was drawn."""
    values = []
    for table in tables:
        wanted = int((table.labels * counts).sum())
        if wanted:
            weights = counts[table.image]
            ways = zip(table.hit, table.kept, strict=True)
            values.append(
                float(np.mean([_area_under(hit[kept], weights[kept], wanted) for hit, kept in ways]))
            )
    return float(np.mean(values)) if values else 0.0


def _area_under(hit: NDArray[np.bool_], weights: NDArray[np.int64], wanted: int) -> float:
    """Return COCO's 101-point average precision of detections by falling score, each counted `weights` times."""
    right, all_ = np.cumsum(hit * weights), np.cumsum(weights)
    if not len(right):
        return 0.0
    precision = right / np.maximum(all_, 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(right / wanted, np.linspace(0, 1, 101), side="left")
    inside = place < len(precision)
    return float(precision[place[inside]].sum() / 101)
