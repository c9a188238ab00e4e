"""Compute percentiles that the sample can carry (MLPerf early stopping)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.core.outcome import Tail

CONFIDENCE = 0.99


def percentile(samples_ms: Sequence[float], share: float) -> Tail:
    """Return percentile `share` of single-run latencies, with its early-stopping bound.

    The bound drops the `t - 1` slowest runs and takes the slowest of the rest, with t the largest
    count for which P[Binomial(n, 1 - share) <= t] is at most 1 % (MLPerf Inference rules, early
    stopping with tolerance 0).
    """
    ordered = sorted(samples_ms)
    have = len(ordered)
    allowed = tolerated(have, share)
    bound = ordered[have - allowed] if allowed >= 1 else None
    plain = ordered[min(max(math.ceil(share * have) - 1, 0), have - 1)]
    return Tail(share=share, plain_ms=plain, bound_ms=bound, need=minimum(share), have=have)


def tolerated(count: int, share: float) -> int:
    """Return the largest t with P[Binomial(count, 1 - share) <= t] <= 1 %, or -1 if not even t = 0."""
    over = 1 - share
    log_term = count * math.log(share)
    total, t = 0.0, -1
    while t < count:
        total += math.exp(log_term)
        if total > 1 - CONFIDENCE:
            return t
        t += 1
        log_term += math.log(count - t) - math.log(t + 1) + math.log(over / share) if t < count else 0.0
    return t


def minimum(share: float) -> int:
    """Return the fewest runs that carry percentile `share`: 11 for p50, 64 for p90, 662 for p99."""
    low, high = 1, 1
    while tolerated(high, share) < 1:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tolerated(middle, share) >= 1 else (middle + 1, high)
    return low


def median(samples: Sequence[float]) -> float:
    """Return the median of at least one number."""
    ordered = sorted(samples)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
