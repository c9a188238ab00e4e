"""Decide when a warm-up is over and how stable a sample is."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from edgekit.core.errors import RecipeError
from edgekit.measure.percentiles import median

WINDOW = 25
PATIENCE = "EDGEKIT_PATIENCE_S"
_NEAR = 0.02


def patience() -> float:
    """Return the longest warm-up in seconds that EDGEKIT_PATIENCE_S allows, infinite where it says nothing.

    On a machine that others use, too, an engine may never be steady: the run then says so, and need not wait for it.

    Raises:
        RecipeError: It is no number of seconds.
    """
    given = os.environ.get(PATIENCE, "")
    try:
        found = float(given) if given else math.inf
    except ValueError:
        found = 0.0
    if not found > 0:
        raise RecipeError(f"{PATIENCE}: {given!r} is no number of seconds", hint="Write one, such as 5.")
    return found


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
