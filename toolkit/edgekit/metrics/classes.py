"""Score a classifier: accuracy, and F1 averaged over classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

METRICS = ("top1", "macro_f1")


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of a classifier as shares from 0 to 1.

    Attributes:
        top1: Share of samples whose best class is right.
        macro_f1: Mean over classes of the harmonic mean of precision and recall.
        by_class: F1 by class name.
        images: How many samples were judged.
    """

    top1: float
    macro_f1: float
    by_class: dict[str, float] = field(default_factory=dict)
    images: int = 0

    def value(self, metric: str) -> float:
        """Return `top1` or `macro_f1`."""
        found: float = getattr(self, metric)
        return found


def class_scores(
    truth: NDArray[np.integer], logits: NDArray[np.floating], names: Sequence[str]
) -> ClassScores:
    """Return the scores of logits or probabilities (N, classes) against classes (N,).

    A class that neither occurs nor is said counts for nothing; scikit-learn's `f1_score` with `average="macro"`.
    """
    return _scores(truth, logits.argmax(1), names)


def _scores(truth: NDArray[np.integer], said: NDArray[np.integer], names: Sequence[str]) -> ClassScores:
    both = np.bincount(truth[truth == said], minlength=len(names))
    given, found = (np.bincount(x, minlength=len(names)) for x in (truth, said))
    occurs = given + found > 0
    f1 = np.where(occurs, 2 * both / np.maximum(given + found, 1), 0.0)
    return ClassScores(
        top1=float((truth == said).mean()), macro_f1=float(f1[occurs].mean()),
        by_class={n: float(v) for n, v in zip(names, f1, strict=True)}, images=len(truth),
    )  # fmt: skip


def drop_interval(
    truth: NDArray[np.integer],
    reference: NDArray[np.floating],
    other: NDArray[np.floating],
    *,
    metric: str,
    draws: int = 1000,
) -> tuple[float, float]:
    """Return the 95 % interval of the metric's drop from `reference` to `other`, by resampling samples in pairs."""
    rng = np.random.default_rng(0)
    count = reference.shape[1]
    names = [str(k) for k in range(count)]
    one, two = reference.argmax(1), other.argmax(1)
    drops = []
    for _ in range(draws):
        k = rng.integers(0, len(truth), len(truth))
        drops.append(
            _scores(truth[k], one[k], names).value(metric) - _scores(truth[k], two[k], names).value(metric)
        )
    low, high = np.quantile(drops, (0.025, 0.975))
    return float(low), float(high)
