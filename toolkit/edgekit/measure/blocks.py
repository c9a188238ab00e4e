"""Compare two builds by blocks of runs in ABBA order, with a bootstrap over the blocks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.core.comparison import IMPROVEMENT, NOTHING, REGRESSION, Ratio
from edgekit.core.watch import watcher
from edgekit.machine.readings import Unknown
from edgekit.machine.sensors import sensors

# A change below 3 % is not called one: two builds of the same code differ by that through code layout alone.
MARGIN = 0.03
ROUNDS, MOST_ROUNDS, RUNS = 5, 20, 100
# A block of a net of microseconds is longer than 100 runs, or scheduling would decide it.
_BLOCK_MS = 250.0
_CALM = 0.01
_RESAMPLES = 2000
# 97.5th and 95th percentile of the normal distribution: an interval that is cleared 19 times in 20.
_POWER = 1.96 + 1.645
BAND_C, _REST_S = 3.0, 300.0


class Runner(Protocol):
    """Runs one build."""

    def run(self, span: str, count: int) -> list[float]:
        """Return `count` latencies in milliseconds."""


@dataclass(kw_only=True)
class Blocks:
    """Median and p90 of each block, of A and of B; `runs` in each at least."""

    runs: int = RUNS
    a: list[tuple[float, float]] = field(default_factory=list)
    b: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def interleaved(
    a: Runner, b: Runner, span: str, *, rounds: int = ROUNDS, most: int = MOST_ROUNDS, runs: int = RUNS,
    heat: Callable[[], float | None] | None = None,
) -> Blocks:  # fmt: skip
    """Return blocks in the order A B B A, so that a steady drift meets both alike.

    A block that would begin hotter than the first waits for the board to cool, five minutes in all at most.

    Args:
        a: The reference.
        b: What is judged.
        span: What to time.
        rounds: At least; each has two blocks of either side.
        most: Rounds at most, while the block medians spread by more than 1 %.
        runs: Of a block at least; it also lasts a quarter of a second.
        heat: Gives the hottest zone in degrees Celsius; blocks begin at most 3 degrees hotter than the first.
    """
    heat = heat or hottest
    start, rest = heat(), Rest()
    usual = float(np.median([v for one in (a, b) for v in one.run(span, 16)]))
    runs = max(runs, math.ceil(_BLOCK_MS / max(usual, 1e-3)))
    found = Blocks(runs=runs)
    for number in range(most):
        if number >= rounds and spread(found.a, found.b) <= _CALM:
            break
        for runner, side in ((a, found.a), (b, found.b), (b, found.b), (a, found.a)):
            if start is not None and not rest.cooled(start, heat):
                found.notes.append(f"a block began more than {BAND_C:g} degrees hotter than the first")
            side.append(block(runner.run(span, runs)))
        watcher().step(f"comparing {span}", number + 1, most)
    return found


def block(samples_ms: Sequence[float]) -> tuple[float, float]:
    """Return median and p90 of one block."""
    return float(np.median(samples_ms)), float(np.quantile(samples_ms, 0.9, method="inverted_cdf"))


@dataclass(kw_only=True)
class Rest:
    """Time that may still be spent on waiting for a board to cool."""

    left_s: float = _REST_S

    def cooled(self, start: float, heat: Callable[[], float | None]) -> bool:
        """Wait until the board is at most 3 degrees hotter than at the start; return whether it became so."""
        while (now := heat()) is not None and now > start + BAND_C:
            if self.left_s <= 0:
                return False
            time.sleep(1.0)
            self.left_s -= 1.0
        return True


def hottest() -> float | None:
    """Return the highest temperature of this machine in degrees Celsius, None where none can be read."""
    read = [s.read() for s in sensors().of("temperature")]
    return max((float(v) for v in read if not isinstance(v, Unknown)), default=None)


def spread(*sides: Sequence[tuple[float, float]]) -> float:
    """Return the coefficient of variation of block medians, the largest of all sides."""
    found = 0.0
    for side in sides:
        medians = np.array([m for m, _ in side])
        found = max(found, float(medians.std(ddof=1) / medians.mean()) if len(medians) > 1 else 1.0)
    return found


def ratio_of(what: str, a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Ratio:
    """Return the ratio of B's blocks over A's, judged.

    The statistic is the ratio of the medians over blocks. Runs within a block depend on each other, so blocks are
    resampled and not runs. A regression is an interval wholly above 1.03, an improvement one wholly below 0.97.

    Args:
        what: "median" or "p90".
        a: One value a block.
        b: The same of B.
        seed: Of the bootstrap.
    """
    one, two = np.asarray(a, np.float64), np.asarray(b, np.float64)
    drawn = _resampled(two, seed + 1) / _resampled(one, seed)
    low, high = (float(v) for v in np.quantile(drawn, [0.025, 0.975]))
    verdict = REGRESSION if low > 1 + MARGIN else IMPROVEMENT if high < 1 - MARGIN else NOTHING
    a_ms, b_ms = float(np.median(one)), float(np.median(two))
    return Ratio(
        what=what, a_ms=a_ms, b_ms=b_ms, ratio=b_ms / a_ms, low=low, high=high, verdict=verdict,
        smallest=MARGIN + _POWER * float(drawn.std()),
    )  # fmt: skip


def _resampled(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    drawn: NDArray[np.float64] = np.median(
        values[rng.integers(len(values), size=(_RESAMPLES, len(values)))], axis=1
    )
    return drawn


def cut(
    samples_ms: Sequence[float], *, runs: int = RUNS, most: int = 2 * MOST_ROUNDS
) -> list[tuple[float, float]]:
    """Return the blocks of a stored run: consecutive runs, at least `runs` each, at most `most` blocks."""
    count = min(len(samples_ms) // runs, most)
    return [block(part.tolist()) for part in np.array_split(np.asarray(samples_ms), count)] if count else []
