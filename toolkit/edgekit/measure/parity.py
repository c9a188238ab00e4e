"""Compare two sets of outputs of the same input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.core.records import Answers

Outputs = Mapping[str, NDArray[np.generic]]
Scores = NDArray[np.float64]

# Of the float32 score, in the median of all that the reference finds.
_FELL = 0.5


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


def scores_fell(reference: Sequence[Outputs], other: Sequence[Outputs], answers: Answers) -> bool:
    """Return whether a detector's scores are gone, or fell by half, where the reference finds something.

    `largest_error` sees neither: beside boxes of hundreds of pixels a score is small, and mAP knows the order
    of scores alone. Two causes were met: one scale for boxes up to 640 and scores up to 1 rounds every score
    to zero, and a bfloat16 convolution (OpenVINO 2026.4.1, AMX, 8 x 8 with stride 8) gave a quarter of each,
    so that no detection reached the app's threshold.

    Args:
        reference: Outputs of float32, one mapping an input.
        other: What is compared with them, of the same inputs.
        answers: Of the detector; other tasks have no such scores.
    """
    if answers.task != "detect":
        return False
    one, two = ([_scores(o, answers) for o in rows] for rows in (reference, other))
    if any(_nothing_stands_out(a, b, answers) for a, b in zip(one, two, strict=True)):
        return True
    # The k-th best against the k-th best: rows of an end-to-end detector may change places.
    best, kept = (np.concatenate([np.sort(a, axis=None)[::-1] for a in rows]) for rows in (one, two))
    found = best > answers.score
    return bool(found.any() and np.median(kept[found] / best[found]) < _FELL)


def _nothing_stands_out(one: Scores, two: Scores, answers: Answers) -> bool:
    if answers.layout == "yolov8-logits":
        return bool(np.ptp(one) > 0) and not np.ptp(two) > 0
    return bool(one.max() > answers.score) and not two.max() > 0


def _scores(outputs: Outputs, answers: Answers) -> Scores:
    """Return a detector's scores between 0 and 1."""
    if answers.layout == "yolov8-logits":
        return 1 / (1 + np.exp(-outputs["scores"].astype(np.float64)))
    first = next(iter(outputs.values())).astype(np.float64)
    return first[0, 4:] if answers.layout == "yolov8" else first[0, :, 4]
