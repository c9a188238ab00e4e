"""The statistics of comparisons: power and false alarms on simulated blocks, against the published table."""

import json

import numpy as np
import pytest

from edgekit.core.comparison import IMPROVEMENT, NOTHING, REGRESSION
from edgekit.measure.blocks import Blocks, Rest, cut, interleaved, ratio_of, spread

pytestmark = pytest.mark.light


def share_found(change: float, spread_: float, *, trials: int = 300) -> float:
    """Return the share of simulated comparisons, 10 independent blocks a side, that are called a regression."""
    rng = np.random.default_rng(7)
    found = 0
    for k in range(trials):
        a, b = (m * (1 + spread_ * rng.standard_normal(10)) for m in (10.0, 10.0 * (1 + change)))
        found += ratio_of("median", a, b, seed=k).verdict == REGRESSION
    return found / trials


# 300 trials, 10 blocks a side (measured by simulation for the method's description). Two simulations of 300
# trials differ by up to 8 points at 43 %.
@pytest.mark.parametrize(
    ("change", "spread_", "share"),
    [(0.05, 0.01, 0.96), (0.05, 0.02, 0.43), (0.05, 0.03, 0.18), (0.08, 0.03, 0.82)],
)
def test_a_slowdown_is_found_as_often_as_the_table_says(change: float, spread_: float, share: float):
    assert share_found(change, spread_) == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("spread_", [0.005, 0.01, 0.02, 0.03])
def test_equal_builds_raise_no_alarm(spread_: float):
    assert share_found(0.0, spread_) == 0.0


def test_a_change_of_the_smallest_size_that_is_printed_is_found_about_19_times_in_20():
    rng = np.random.default_rng(3)
    found, trials = 0, 200
    for k in range(trials):
        a = 10 * (1 + 0.015 * rng.standard_normal(20))
        smallest = ratio_of("median", a, a[rng.permutation(20)], seed=k).smallest
        b = 10 * (1 + smallest) * (1 + 0.015 * rng.standard_normal(20))
        found += ratio_of("median", a, b, seed=k).verdict == REGRESSION
    assert 0.85 <= found / trials <= 1.0


def test_a_faster_build_is_an_improvement_and_a_small_change_is_none():
    rng = np.random.default_rng(0)
    a, b = (m * (1 + 0.005 * rng.standard_normal(20)) for m in (10.0, 8.0))
    assert ratio_of("median", a, b).verdict == IMPROVEMENT
    assert ratio_of("median", a, a * 1.02).verdict == NOTHING


class _Clock:
    """Takes `ms` a run, drifting by 2 % a turn of either side."""

    turns = 0

    def __init__(self, ms: float, order: list[str], name: str) -> None:
        self.ms, self.order, self.name = ms, order, name

    def run(self, span: str, count: int) -> list[float]:
        self.order.append(self.name)
        _Clock.turns += 1
        return [self.ms * (1 + 0.02 * _Clock.turns)] * count


def test_blocks_come_in_the_order_a_b_b_a_so_that_a_drift_meets_both():
    order: list[str] = []
    a, b = _Clock(10, order, "a"), _Clock(10, order, "b")
    found = interleaved(a, b, "model", rounds=5, most=5, heat=lambda: None)
    assert "".join(order[2:]) == "abba" * 5
    assert len(found.a) == len(found.b) == 10
    ratio = ratio_of("median", [m for m, _ in found.a], [m for m, _ in found.b])
    assert ratio.ratio == pytest.approx(1.0, abs=0.02)
    assert found.runs == 100


def test_rounds_are_added_while_blocks_spread_and_not_when_they_are_calm():
    rng = np.random.default_rng(0)

    class Noisy:
        def run(self, span: str, count: int) -> list[float]:
            return [10 * (1 + 0.05 * rng.standard_normal())] * count

    class Calm:
        def run(self, span: str, count: int) -> list[float]:
            return [10.0] * count

    assert len(interleaved(Noisy(), Noisy(), "model", heat=lambda: None).a) == 40
    assert len(interleaved(Calm(), Calm(), "model", heat=lambda: None).a) == 10


def test_blocks_that_begin_hot_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgekit.measure.blocks.Rest", lambda: Rest(left_s=0.0))
    degrees = iter([50.0, *[60.0] * 1000])

    class Calm:
        def run(self, span: str, count: int) -> list[float]:
            return [10.0] * count

    found = interleaved(Calm(), Calm(), "model", heat=lambda: next(degrees))
    assert any("3 degrees" in n for n in found.notes)


def test_a_stored_run_is_cut_into_blocks_of_consecutive_runs():
    blocks = cut([1.0] * 300 + [2.0] * 300, runs=100)
    assert [m for m, _ in blocks] == [1, 1, 1, 2, 2, 2]
    assert cut([1.0] * 99, runs=100) == []
    assert spread(blocks) == pytest.approx(np.std([1, 1, 1, 2, 2, 2], ddof=1) / 1.5)
    assert Blocks().runs == 100
    assert json.dumps(blocks)


def test_a_board_that_became_cooler_is_not_waited_for_and_a_hot_one_is_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("edgekit.measure.blocks.time.sleep", lambda _: None)
    assert Rest(left_s=10).cooled(60.0, lambda: 50.0)
    falling = iter([70.0, 66.0, 62.0])
    rest = Rest(left_s=10)
    assert rest.cooled(60.0, lambda: next(falling))
    assert rest.left_s == 8
    assert not rest.cooled(60.0, lambda: 70.0)
    assert rest.left_s == 0
