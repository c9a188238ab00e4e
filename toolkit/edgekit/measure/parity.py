"""Compare two sets of outputs of the same input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgekit.core.records import Answers

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


def scores_died(reference: Outputs, other: Outputs, answers: Answers) -> bool:
    """Return whether a detector's scores are gone where the reference finds something.

    One scale for boxes up to 640 and scores up to 1 rounds every score to zero; so the best score has to be
    above 0, and of logits one has to stand out, wherever that is so in float.
    """
    one, two = (_score_rows(o, answers) for o in (reference, other))
    if one is None or two is None:
        return False
    if answers.layout == "yolov8-logits":
        return bool(np.ptp(one) > 0) and not np.ptp(two) > 0
    return bool(one.max() > answers.score) and not two.max() > 0


def _score_rows(outputs: Outputs, answers: Answers) -> NDArray[np.float64] | None:
    """Return a detector's scores (or logits), None for another task."""
    if answers.task != "detect":
        return None
    if answers.layout == "yolov8-logits":
        return outputs["scores"].astype(np.float64)
    first = next(iter(outputs.values())).astype(np.float64)
    return first[0, 4:] if answers.layout == "yolov8" else first[0, :, 4]
