"""Fit a hierarchical Gaussian process to published latencies, in logarithms.

What a row shares with another (unit, device, engine, precision, edition, model) says how much of
its level and of its slope over GFLOPs they have in common; each such group is one kernel term. The
posterior gives a mean and a band, wide where nothing near was published. Rasmussen and Williams,
Gaussian Processes for Machine Learning (2006), algorithm 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A term is (shared keys, shape, weight): "level", "slope" (over log GFLOPs), "bend" (smooth in log GFLOPs),
# "wide" (slope over log activations), "speed" (slope over the log of the unit's peak).
# Weights are prior variances of log ms that maximize the marginal likelihood of the fitted rows
# (scripts/fit_predictor.py); rows held out for judging were not seen.
TERMS: tuple[tuple[tuple[str, ...], str, float], ...] = (
    ((), "level", 0.21),
    ((), "slope", 0.32),
    ((), "wide", 0.033),
    (("unit",), "level", 0.12),
    (("unit",), "slope", 0.028),
    (("unit",), "speed", 0.38),
    (("unit", "device"), "level", 0.038),
    (("unit", "device"), "slope", 0.0037),
    (("unit", "engine"), "level", 0.29),
    (("unit", "engine"), "slope", 0.002),
    (("unit", "precision"), "level", 0.081),
    (("unit", "engine", "precision"), "slope", 0.0048),
    (("unit", "engine", "precision"), "level", 0.029),
    (("unit", "device", "engine"), "level", 0.013),
    (("unit", "device", "engine"), "slope", 0.00079),
    (("unit", "device", "engine", "precision"), "level", 0.0044),
    (("unit", "device", "engine", "precision"), "slope", 0.00045),
    (("unit", "device", "engine", "precision"), "bend", 0.0022),
    (("unit", "device", "engine", "precision", "software"), "level", 0.00079),
    (("unit", "device", "engine", "precision", "software"), "slope", 0.0038),
    (("unit", "device", "software"), "level", 0.0066),
    (("unit", "engine", "software"), "level", 0.057),
    (("unit", "device", "engine", "software"), "level", 0.0025),
    (("device", "power"), "level", 0.036),
    (("family",), "level", 0.041),
    (("unit", "engine", "family"), "level", 0.11),
    (("unit", "device", "engine", "family"), "level", 0.0079),
    (("unit", "device", "engine", "precision", "family"), "level", 0.01),
    (("model",), "level", 0.011),
    (("unit", "engine", "model"), "level", 0.0021),
    (("unit", "device", "engine", "model"), "level", 0.00051),
    (("unit", "device", "engine", "precision", "model"), "level", 0.00037),
)
# Variance of one row about all that it shares.
NOISE = 0.0042
_BEND = 0.8  # length over log GFLOPs


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row as the process sees it; keys with an empty value are shared with nobody."""

    keys: Mapping[str, str]
    gflops: float
    activations_m: float
    peak: float = 0.0


def _coordinates(points: Sequence[Point]) -> dict[str, Array]:
    return {
        "slope": np.array([math.log(p.gflops / 30) for p in points]),
        "wide": np.array([math.log(p.activations_m / 100) for p in points]),
        "speed": np.array([math.log(p.peak / 1000) if p.peak else 0.0 for p in points]),
    }


def _same(a: Sequence[Point], b: Sequence[Point], keys: tuple[str, ...]) -> Any:
    if not keys:
        return np.ones((len(a), len(b)))
    left = np.array(["|".join(p.keys.get(k, "") for k in keys) for p in a])
    right = np.array(["|".join(p.keys.get(k, "") for k in keys) for p in b])
    known = np.array([all(p.keys.get(k, "") for k in keys) for p in a])
    return ((left[:, None] == right[None, :]) & known[:, None]).astype(float)


def bases(a: Sequence[Point], b: Sequence[Point]) -> list[Array]:
    """Return each term's matrix (len(a), len(b)) before it is weighted."""
    ours, theirs = _coordinates(a), _coordinates(b)
    made = []
    for keys, shape, _ in TERMS:
        same = _same(a, b, keys)
        if shape == "bend":
            gap = (ours["slope"][:, None] - theirs["slope"][None, :]) / _BEND
            same = same * np.exp(-0.5 * gap**2)
        elif shape != "level":
            same = same * ours[shape][:, None] * theirs[shape][None, :]
        made.append(same)
    return made


def own_variance(points: Sequence[Point]) -> Array:
    """Return each point's prior variance, in the squared logarithm."""
    ours = _coordinates(points)
    total = np.zeros(len(points))
    for _, shape, weight in TERMS:
        total += weight * (1.0 if shape in {"level", "bend"} else ours[shape] ** 2)
    return total


def kernel(a: Sequence[Point], b: Sequence[Point]) -> Array:
    """Return the covariance (len(a), len(b)) of log ms: the weighted sum of the terms."""
    weights = np.array([weight for _, _, weight in TERMS])
    total: Array = np.tensordot(weights, np.stack(bases(a, b)), 1)
    return total


class Fitted:
    """A process that has seen its points."""

    def __init__(self, points: Sequence[Point], ms: Sequence[float]) -> None:
        self.points = list(points)
        logs = np.log(np.asarray(ms, float))
        self.mean = float(logs.mean())
        self.inverse = np.linalg.inv(kernel(points, points) + NOISE * np.eye(len(logs)))
        self.answer = self.inverse @ (logs - self.mean)

    def predict(self, points: Sequence[Point]) -> tuple[Array, Array]:
        """Return mean and standard deviation of log ms, the noise of one more row included."""
        cross = kernel(points, self.points)
        mean = self.mean + cross @ self.answer
        # A key nobody shares counts in the point's own variance: unknown is uncertain.
        left = np.einsum("ij,jk,ik->i", cross, self.inverse, cross)
        variance = own_variance(points) - left + NOISE
        return mean, np.sqrt(np.maximum(variance, 1e-9))

    def left_out(self) -> tuple[Array, Array]:
        """Return each point's error and deviation as predicted from all others (closed form)."""
        spread = 1 / np.diag(self.inverse)
        return self.answer * spread, np.sqrt(spread)
