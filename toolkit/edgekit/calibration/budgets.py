"""Spend a budget of parameters or multiply-adds on groups of layers: who keeps how many of its units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Share of its units that every group keeps at least.
LEAST = 0.125


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A group as a budget sees it.

    Attributes:
        name: Unique.
        size: Units there are.
        cost: Of one unit.
        multiple: What kernels like its size to be a multiple of.
        error: Relative error left at a size.
        weight: How much the network's answer suffers from that error.
    """

    name: str
    size: int
    cost: float
    multiple: int
    error: Callable[[float], float]
    weight: float = 1.0

    @property
    def least(self) -> int:
        """The units it keeps at least: an eighth, in whole multiples."""
        return min(max(math.ceil(self.size * LEAST / self.multiple), 1) * self.multiple, self.size)


def spread(units: Sequence[Unit], budget: float) -> dict[str, int]:
    """Return who keeps how many units, so that the weighted errors fall fastest for what they cost.

    From the least of everybody, the next step goes to whoever gains most for its cost, looking at any number of units ahead, so
    that a curve that is flat at first is seen through (automatic rank allocation of SlimDiff as we read it). Sizes are whole
    multiples; the budget is never exceeded, and filled up to what the cheapest step leaves. The order of `units` is without
    effect.
    """
    ordered = sorted(units, key=lambda u: u.name)
    sizes = {u.name: u.least for u in ordered}
    left = budget - sum(u.least * u.cost for u in ordered)
    steps = {u.name: _best_step(u, sizes[u.name], left) for u in ordered}
    while True:
        gain, name = max(((steps[u.name][0], u.name) for u in ordered), key=lambda p: (p[0], p[1]))
        if gain < 0:
            return sizes
        unit = next(u for u in ordered if u.name == name)
        to = steps[name][1]
        left -= (to - sizes[name]) * unit.cost
        sizes[name] = to
        # What is left shrinks for all, but only steps that no longer fit need another look.
        steps[name] = _best_step(unit, to, left)
        for other in ordered:
            if (steps[other.name][1] - sizes[other.name]) * other.cost > left:
                steps[other.name] = _best_step(other, sizes[other.name], left)


def _best_step(unit: Unit, size: int, left: float) -> tuple[float, int]:
    """Return the best gain for its cost from a size on, and where it leads; a gain of -1 where nothing fits."""
    best = (-1.0, size)
    here = unit.error(size)
    for to in _sizes_above(unit, size):
        cost = (to - size) * unit.cost
        if cost > left:
            break
        gain = max(unit.weight * (here - unit.error(to)), 0.0) / cost
        if gain > best[0]:
            best = (gain, to)
    return best


def _sizes_above(unit: Unit, size: int) -> list[int]:
    found = [*range(size + unit.multiple, unit.size, unit.multiple)]
    return [*found, unit.size] if size < unit.size else []


def fitted(units: Sequence[Unit], wanted: Mapping[str, float], budget: float) -> dict[str, int]:
    """Return wanted sizes in whole multiples: rounded down, then up again by the largest remainder while the budget lasts."""
    ordered = sorted(units, key=lambda u: u.name)
    sizes = {
        u.name: u.size
        if wanted[u.name] >= u.size
        else max(int(wanted[u.name] // u.multiple) * u.multiple, u.least)
        for u in ordered
    }
    left = budget - sum(sizes[u.name] * u.cost for u in ordered)
    while left < 0:
        # Those that stay at the least cost more than they were given: whoever is furthest above the wish gives.
        over = [u for u in ordered if sizes[u.name] > u.least]
        if not over:
            return sizes
        one = max(over, key=lambda u: ((sizes[u.name] - wanted[u.name]) / u.multiple, u.name))
        down = max(sizes[one.name] - (sizes[one.name] % one.multiple or one.multiple), one.least)
        left += (sizes[one.name] - down) * one.cost
        sizes[one.name] = down
    while True:
        above = {u.name: _sizes_above(u, sizes[u.name])[:1] for u in ordered}
        fits = [u for u in ordered if above[u.name] and (above[u.name][0] - sizes[u.name]) * u.cost <= left]
        if not fits:
            return sizes
        best = max(fits, key=lambda u: ((wanted[u.name] - sizes[u.name]) / u.multiple, u.name))
        left -= (above[best.name][0] - sizes[best.name]) * best.cost
        sizes[best.name] = above[best.name][0]


def uniform(units: Sequence[Unit], budget: float) -> dict[str, int]:
    """Return the same share for everybody."""
    share = budget / sum(u.size * u.cost for u in units)
    return fitted(units, {u.name: share * u.size for u in units}, budget)


def by_score(units: Sequence[Unit], budget: float, scores: Mapping[str, float]) -> dict[str, int]:
    """Return shares that fall with the softmax of negative scores, as MoDeGPT has it: a high score keeps more.

    Args:
        units: The groups.
        budget: Cost of all that is kept.
        scores: Of every group, standardised here; the temperature is 1.
    """
    values = np.array([scores[u.name] for u in units], np.float64)
    spread_ = values.std()
    values = (values - values.mean()) / (spread_ if spread_ > 0 else 1)
    gone = np.exp(-values) / np.exp(-values).sum()
    total = sum(u.size * u.cost for u in units)
    removed = {u.name: float(g) * (total - budget) / u.cost for u, g in zip(units, gone, strict=True)}
    return fitted(units, {u.name: max(u.size - removed[u.name], u.least) for u in units}, budget)


def nearest(units: Sequence[Unit], share: float) -> dict[str, int]:
    """Return the same share for everybody in the nearest whole multiples, whatever that sums up to: for tables of counts."""
    return {u.name: max(round(share * u.size / u.multiple), 1) * u.multiple for u in units}
