"""Percentiles, steadiness, parity, and a contest between real engines."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.errors import RecipeError
from edgekit.core.records import Artifact, Contract, TensorSpec
from edgekit.jobs.trial import ratio, share_as_planned
from edgekit.measure.contest import Contender, contest
from edgekit.measure.parity import largest_error
from edgekit.measure.percentiles import minimum, percentile, tolerated
from edgekit.measure.steady import patience, stability, warm
from edgekit.reports.words import tail_words
from tests.conftest import ROOT

pytestmark = pytest.mark.light


# MLPerf Inference rules, early stopping at 99 % confidence: 64 for p90, 662 for p99.
@pytest.mark.parametrize(("share", "runs"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662)])
def test_a_percentile_needs_as_many_runs_as_mlperf_says(share: float, runs: int):
    assert minimum(share) == runs
    assert percentile([1.0] * (runs - 1), share).bound_ms is None
    assert percentile([1.0] * runs, share).bound_ms == 1.0


# The same rules' tables: which of n sorted runs is the estimate.
@pytest.mark.parametrize(
    ("share", "runs", "rank"),
    [(0.9, 1024, 945), (0.9, 4096, 3732), (0.9, 24576, 22229), (0.99, 1024, 1022), (0.99, 4096, 4071)],
)
def test_the_bound_is_the_run_that_mlperf_picks(share: float, runs: int, rank: int):
    assert percentile([float(k) for k in range(1, runs + 1)], share).bound_ms == rank


def test_what_a_sample_cannot_carry_says_what_is_missing():
    assert tail_words(percentile([1.0] * 200, 0.99)) == "n/a (need 662, have 200)"


@given(count=st.integers(1, 400), share=st.sampled_from([0.5, 0.9, 0.99]))
def test_the_tolerated_count_is_the_largest_with_one_percent(count: int, share: float):
    def tail(t: int) -> float:
        from math import comb

        return sum(comb(count, k) * (1 - share) ** k * share ** (count - k) for k in range(t + 1))

    found = tolerated(count, share)
    if found < count:
        assert found == -1 or tail(found) <= 0.01 + 1e-9
        assert tail(found + 1) > 0.01 - 1e-9


def test_a_bound_is_never_below_the_plain_percentile():
    sample = np.random.default_rng(0).gamma(2, 5, 1000).tolist()
    for share in (0.5, 0.9, 0.95, 0.99):
        found = percentile(sample, share)
        assert found.bound_ms is not None
        assert found.bound_ms >= found.plain_ms


@pytest.mark.parametrize(("spread", "label"), [(0.01, "stable"), (0.05, "noisy"), (0.3, "unstable")])
def test_a_sample_is_labelled_by_its_variation(spread: float, label: str):
    sample = 10 * (1 + spread * np.tile([-1.0, 1.0], 50))
    assert stability(sample.tolist()) == label


def test_the_environment_can_end_warm_ups_early(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EDGEKIT_PATIENCE_S", raising=False)
    assert patience() == float("inf")
    monkeypatch.setenv("EDGEKIT_PATIENCE_S", "2.5")
    assert patience() == 2.5
    for wrong in ("soon", "0", "-1", "nan"):
        monkeypatch.setenv("EDGEKIT_PATIENCE_S", wrong)
        with pytest.raises(RecipeError, match="is no number of seconds"):
            patience()


def test_a_warm_up_that_was_ended_early_is_not_called_steady(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGEKIT_PATIENCE_S", "0.2")
    with Contender(artifact(classifier, threads=1), []) as one:
        assert one.warm_up()["steady"] is False


def test_a_warm_up_ends_when_three_windows_agree_and_not_before():
    falling, flat = np.linspace(20, 10, 75).tolist(), [10.0] * 75
    assert not warm(falling, 60)
    assert warm(falling + flat, 60)
    assert not warm(flat, 1.0)


def test_a_speed_up_is_the_ratio_of_medians():
    middle, low, high = ratio([20.0] * 64, [10.0] * 128)
    assert (middle, low, high) == (2.0, 2.0, 2.0)


def test_errors_are_relative_to_the_largest_value():
    a, b = {"o": np.array([0.0, 100.0])}, {"o": np.array([1.0, 100.0])}
    assert largest_error(a, b) == pytest.approx(0.01)
    assert largest_error(a, {"o": np.array([np.nan, 1.0])}) == float("inf")
    assert largest_error(a, {}) == float("inf")


def test_the_share_that_ran_as_planned_is_weighted_by_time():
    from edgekit.core.records import LayerRun

    rows = [
        LayerRun(name=str(k), op="Conv", dtype=d, unit="CPU", share=s, wanted=w)
        for k, (d, s, w) in enumerate([("int8", 0.3, "int8"), ("fp32", 0.1, "int8"), ("fp32", 0.6, "")])
    ]
    assert share_as_planned(rows) == pytest.approx(0.75)
    assert share_as_planned(rows[2:]) is None


def artifact(path: Path, **options: object) -> Artifact:
    contract = Contract(
        inputs=(TensorSpec(name="input", shape=(1, 3, 32, 32), dtype="float32"),),
        outputs=(TensorSpec(name="logits", shape=(1, 7), dtype="float32"),),
    )
    return Artifact(backend="onnxruntime", precision="fp32", main=path, contract=contract, options=options)


def test_a_contest_gives_every_contender_its_runs_in_a_process_of_its_own(classifier: Path):
    found = contest(
        {"one": artifact(classifier, threads=1), "two": artifact(classifier, threads=2)},
        [],
        runs=64,
        receipts=True,
    )
    for sample in found.values():
        assert len(sample.spans["model"]) >= 64
        assert min(sample.spans["model"]) > 0
        assert sum(row["share"] for row in sample.receipt) == pytest.approx(1.0)


def test_a_contender_that_cannot_be_read_ends_with_its_error(tmp_path: Path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(RecipeError, match="cannot read it"):
        contest({"bad": artifact(tmp_path / "bad.onnx")}, [], runs=11)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_stopped_contender_dies_with_a_parent_that_was_killed(classifier: Path):
    code = f"""
import sys, time
from pathlib import Path
from tests.unit.test_measure import artifact
from edgekit.measure.contest import Contender
one = Contender(artifact(Path({str(classifier)!r})), [])
print(one._process.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail(f"process {child} outlived its parent")
