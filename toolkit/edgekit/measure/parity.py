"""Compare two sets of outputs, or two sets of detections, of the same input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, NDArray[np.generic]]


def largest_error(reference: Outputs, other: Outputs) -> float:
    """Return the largest |difference| of any output, relative to that output's largest |value|."""
    worst = 0.0
    for name, value in reference.items():
        if name not in other or other[name].shape != value.shape:
            return float("inf")
        a, b = value.astype(np.float64), other[name].astype(np.float64)
        if not np.isfinite(b).all():
            return float("inf")
        worst = max(worst, float(np.abs(a - b).max(initial=0)) / max(float(np.abs(a).max(initial=0)), 1e-12))
    return worst


def cosine(reference: Outputs, other: Outputs) -> float:
    """Return the smallest cosine similarity of any output."""
    worst = 1.0
    for name, value in reference.items():
        a, b = value.astype(np.float64).ravel(), other[name].astype(np.float64).ravel()
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        worst = min(worst, float(a @ b) / norm if norm else 1.0)
    return worst


def matched_f1(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    other_boxes: NDArray[np.float32],
    other_labels: NDArray[np.int64],
    *,
    iou: float = 0.5,
) -> float:
    """Return the F1 of two sets of detections matched one to one, same class, by overlap.

    Returns 1.0 where both are empty.
    """
    if not len(boxes) and not len(other_boxes):
        return 1.0
    if not len(boxes) or not len(other_boxes):
        return 0.0
    overlap = _iou(boxes, other_boxes) * (labels[:, None] == other_labels[None, :])
    matched = 0
    while overlap.size and float(overlap.max()) >= iou:
        row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
        overlap[row, :] = 0
        overlap[:, column] = 0
        matched += 1
    return 2 * matched / (len(boxes) + len(other_boxes))


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    area = [(v[:, 2] - v[:, 0]) * (v[:, 3] - v[:, 1]) for v in (a, b)]
    union = area[0][:, None] + area[1][None, :] - common
    result: NDArray[np.float64] = common / np.maximum(union, 1e-9)
    return result
