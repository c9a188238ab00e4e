"""Tell how far two sets of detections agree, without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_IOU = 0.5
Answers = Sequence[Mapping[str, Any]]


def unmatched(expected: Sequence[Answers], found: Sequence[Answers]) -> float:
    """Return 1 - F1 of matching boxes, one to one, of the same class and an IoU of at least 0.5.

    Args:
        expected: The detections of each frame as JSON has them: `box` as x1 y1 x2 y2 in pixels, and `class`.
        found: The same of the other side.
    """
    pairs = total = 0
    for one, two in zip(expected, found, strict=True):
        total += len(one) + len(two)
        pairs += _pairs(one, two)
    return 1 - 2 * pairs / total if total else 0.0


def _pairs(one: Answers, two: Answers) -> int:
    a, b = (np.asarray([r["box"] for r in x], np.float64).reshape(-1, 4) for x in (one, two))
    classes = [np.asarray([r["class"] for r in x], np.int64) for x in (one, two)]
    overlaps = iou(a, b)
    overlaps[classes[0][:, None] != classes[1][None, :]] = 0
    count = 0
    while overlaps.size and overlaps.max() >= _IOU:
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        overlaps[row, :] = overlaps[:, column] = 0
        count += 1
    return count


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of every box of `a` (N, 4) with every one of `b` (M, 4), as (N, M)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b)]
    found: NDArray[np.float64] = inside / np.maximum(areas[0][:, None] + areas[1][None, :] - inside, 1e-12)
    return found
