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
