"""Decide when a warm-up is over and how stable a sample is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.measure.percentiles import median

WINDOW = 25
_NEAR = 0.02


def warm(samples_ms: Sequence[float], elapsed_s: float, *, least_s: float = 2.0) -> bool:
    """Return whether the last three windows of 25 runs have medians within 2 % of each other.

    Args:
        samples_ms: All warm-up runs so far, in order.
        elapsed_s: Time since the first of them.
        least_s: Shortest warm-up; 2 s here, 5 s on Jetson and ARM boards.
    """
    if len(samples_ms) < 3 * WINDOW or elapsed_s < least_s:
        return False
    tail = samples_ms[-3 * WINDOW :]
    medians = [median(tail[k : k + WINDOW]) for k in range(0, 3 * WINDOW, WINDOW)]
    return max(medians) - min(medians) <= _NEAR * min(medians)


def stability(samples_ms: Sequence[float]) -> str:
    """Return "stable" (coefficient of variation up to 2.5 %), "noisy" (up to 10 %) or "unstable"."""
    mean = sum(samples_ms) / len(samples_ms)
    variance = sum((v - mean) ** 2 for v in samples_ms) / max(len(samples_ms) - 1, 1)
    variation = math.sqrt(variance) / mean if mean else 0.0
    if variation <= 0.025:
        return "stable"
    return "noisy" if variation <= 0.10 else "unstable"
