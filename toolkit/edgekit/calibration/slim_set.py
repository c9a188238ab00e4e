"""Choose the prompts that calibration runs on: few that cover what the many ask for (SlimSet)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RIDGE = 1e-3


def slim_set(states: NDArray[np.floating], count: int) -> tuple[list[int], list[float]]:
    """Return indices of `count` prompts in the order they are picked, and what each added.

    Greedy ridge leverage with deflation: the prompt whose embedding the picked ones explain least comes next. Where all
    directions are taken, it starts over with those that are left. Works in the embedding's dimension, whatever the pool's size;
    the same pool gives the same picks.

    Args:
        states: Embeddings, (prompts, d): the mean of a text encoder's last states; they are normalised here.
        count: Prompts to pick; all where there are fewer.
    """
    rows = np.asarray(states, np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    left = np.ones(len(rows), bool)
    residual = rows.copy()
    picked: list[int] = []
    scores: list[float] = []
    while len(picked) < min(count, len(rows)):
        energy = np.where(left, (residual**2).sum(1), -1.0)
        best = int(np.argmax(energy))
        # Of repeated prompts nothing is left after the first; then all directions count anew.
        if energy[best] <= _RIDGE:
            residual = np.where(left[:, None], rows, 0.0)
            energy = np.where(left, (residual**2).sum(1), -1.0)
            best = int(np.argmax(energy))
        picked.append(best)
        scores.append(float(energy[best]))
        left[best] = False
        axis = residual[best]
        residual = residual - np.outer(residual @ axis, axis) / (axis @ axis + _RIDGE)
    return picked, scores
