"""Precision and recall of a detector at the one score where both serve best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.coco_map import Found, Truth, evaluate

# Scores at which precision and recall are read: ultralytics uses a thousand, too.
_GRID = np.linspace(0, 1, 1000)


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Precision and recall at IoU 0.5, where the mean over classes of their F1 is highest.

    Attributes:
        score: The score threshold it was read at.
        precision: Mean over the classes that have labels.
        recall: Likewise.
        by_class: Precision and recall by class name.
    """

    score: float
    precision: float
    recall: float
    by_class: dict[str, tuple[float, float]]


def operating_point(truths: Sequence[Truth], found: Sequence[Found], names: Sequence[str]) -> OperatingPoint:
    """Return precision and recall at the score of the highest mean F1, one score for all classes.

    Args:
        truths: Labels.
        found: Detections, in the same order.
        names: Class names.
    """
    judged = evaluate(truths, found, len(names))
    curves = {name: _curve(judged, k, len(truths)) for k, name in enumerate(names)}
    known = {name: c for name, c in curves.items() if c is not None}
    if not known:
        return OperatingPoint(score=0.0, precision=0.0, recall=0.0, by_class={})
    precision = np.stack([p for p, _ in known.values()])
    recall = np.stack([r for _, r in known.values()])
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    best = int(f1.mean(0).argmax())
    return OperatingPoint(
        score=float(_GRID[best]), precision=float(precision[:, best].mean()), recall=float(recall[:, best].mean()),
        by_class={n: (float(p[best]), float(r[best])) for n, (p, r) in known.items()},
    )  # fmt: skip


def _curve(judged: Any, label: int, images: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return precision and recall of a class at every score of the grid, None where it has no labels."""
    rows = [r for r in judged.evalImgs[label * images : (label + 1) * images] if r is not None]
    wanted = int(sum((np.asarray(r["gtIgnore"]) == 0).sum() for r in rows))
    if not wanted:
        return None
    scores = np.concatenate([np.asarray(r["dtScores"], np.float64) for r in rows])
    counted = ~np.concatenate([np.asarray(r["dtIgnore"])[0].astype(bool) for r in rows])
    hits = np.concatenate([np.asarray(r["dtMatches"])[0] > 0 for r in rows])
    order = np.argsort(scores[counted])
    scores, hits = scores[counted][order], hits[counted][order]
    # Detections at or above each threshold: those from the first that reaches it.
    first = np.searchsorted(scores, _GRID, side="left")
    right = np.concatenate([np.cumsum(hits[::-1])[::-1], [0]])[first]
    shown = len(scores) - first
    # Above its best score a class has shown nothing wrong; one that is never found has shown nothing right.
    empty = 1.0 if len(scores) else 0.0
    return np.where(shown > 0, right / np.maximum(shown, 1), empty), right / wanted
