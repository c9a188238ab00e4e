"""Find the fewest layers to exempt so that accuracy holds, with few accuracy runs."""

from __future__ import annotations

from collections.abc import Callable


def fewest(tried: Callable[[int], float], floor: float, layers: int, budget: int) -> int | None:
    """Return the fewest exemptions from the top of the ranking that reach `floor`, by bisection.

    Doubles until one suffices, then bisects; at most `budget` accuracy runs. None where none did.

    Args:
        tried: Gives the accuracy with that many layers exempted.
        floor: Accuracy to reach.
        layers: Length of the ranking.
        budget: Accuracy runs at most.
    """
    low, high, used = 0, None, 0
    for count in sorted({c for c in (1, 4, 12, 32) if c < layers} | {layers}):
        if used == budget or (high is not None):
            break
        used += 1
        if tried(count) >= floor:
            high = count
        else:
            low = count
    while high is not None and high - low > 1 and used < budget:
        middle = (low + high) // 2
        used += 1
        if tried(middle) >= floor:
            high = middle
        else:
            low = middle
    return high
