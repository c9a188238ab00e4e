"""Who runs which stage: the masks that a mixed network is trained on, and those that are served."""

from __future__ import annotations

import numpy as np


def prefix_masks(stages: int) -> tuple[str, ...]:
    """Return the masks from all student to all teacher, loaded front to back: "SSS", "TSS", "TTS", "TTT"."""
    return tuple("T" * k + "S" * (stages - k) for k in range(stages + 1))


def prefix_mask(stages: int, rng: np.random.Generator) -> str:
    """Return a mask of the prefix path that is mixed."""
    k = int(rng.integers(1, stages))
    return "T" * k + "S" * (stages - k)


def random_mask(stages: int, rng: np.random.Generator) -> str:
    """Return any mixed mask: half of them in two segments, the others a coin a stage (arXiv 2509.22319, authors' code)."""
    if rng.random() < 0.5:
        first, cut = "TS"[int(rng.integers(2))], int(rng.integers(1, stages))
        other = "S" if first == "T" else "T"
        return first * cut + other * (stages - cut)
    coins = ["TS"[int(c)] for c in rng.integers(2, size=stages)]
    if len(set(coins)) == 1:
        k = int(rng.integers(stages))
        coins[k] = "S" if coins[k] == "T" else "T"
    return "".join(coins)
