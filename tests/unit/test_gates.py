"""Gates: each state of each."""

from __future__ import annotations

import dataclasses

import pytest

from edgekit.core.outcome import Accuracy, Outcome, VariantOutcome, Verdict
from edgekit.core.records import Predicted
from edgekit.gates.protocol import Evidence, gate_keys
from edgekit.measure.latency import latency

pytestmark = pytest.mark.light
STEADY = [10.0 + 0.01 * (k % 7) for k in range(700)]


def outcome(**words: object) -> VariantOutcome:
    return dataclasses.replace(VariantOutcome(name="v", backend="b", precision="int8"), **words)


def judged(key: str, limit: float, evidence: Evidence) -> Verdict:
    return gate_keys()[key].judge(key, limit, evidence)


@pytest.mark.parametrize(("limit", "state"), [(11.0, "pass"), (9.0, "fail")])
@pytest.mark.parametrize("key", ["latency_p50_ms", "latency_p90_ms", "latency_p99_ms"])
def test_a_latency_gate_judges_the_bound(key: str, limit: float, state: str):
    chosen = outcome(latencies=(latency(STEADY, "model", (0.5, 0.9, 0.95, 0.99)),))
    assert judged(key, limit, Evidence(chosen=chosen)).state == state


def test_a_sample_that_cannot_carry_a_percentile_is_not_judged():
    chosen = outcome(latencies=(latency(STEADY[:200], "model", (0.5, 0.99)),))
    found = judged("latency_p99_ms", 99, Evidence(chosen=chosen))
    assert (found.state, found.found) == ("not judged", "n/a (need 662, have 200)")


def test_an_unstable_run_is_not_judged():
    chosen = outcome(latencies=(latency([5.0, 15.0] * 400, "model", (0.5, 0.9)),))
    assert judged("latency_p90_ms", 1, Evidence(chosen=chosen)).state == "not judged"


def test_a_prediction_is_never_a_measurement():
    chosen = outcome(predicted=Predicted(ms=3, low_ms=2, high_ms=4, basis="", nearest=""))
    found = judged("latency_p90_ms", 99, Evidence(chosen=chosen, why_no_device="not here"))
    assert found.state == "not measured"
    assert "predicted" in found.found


@pytest.mark.parametrize(("drop", "state"), [(0.01, "pass"), (0.0101, "fail"), (-0.02, "pass")])
def test_the_accuracy_drop_is_judged_by_its_point_estimate(drop: float, state: str):
    accuracy = Accuracy(metric="map50", value=0.8, drop=drop, interval=(-1, 1), images=500)
    assert judged("accuracy_drop", 0.01, Evidence(chosen=outcome(accuracy=accuracy))).state == state


def test_a_simulated_accuracy_is_not_measured():
    accuracy = Accuracy(metric="map50", value=0.8, drop=0.0, simulated=True)
    assert judged("accuracy_drop", 0.01, Evidence(chosen=outcome(accuracy=accuracy))).state == "not measured"


def test_accuracy_that_cannot_be_judged_says_why():
    found = judged("accuracy_drop", 0.01, Evidence(chosen=outcome(), why_no_accuracy="no labels"))
    assert (found.state, found.detail) == ("not judged", "no labels")


@pytest.mark.parametrize(("share", "state", "code"), [(0.95, "pass", 4), (0.5, "fail", 4)])
def test_a_precision_that_was_not_kept_breaks_the_contract(share: float, state: str, code: int):
    found = judged("precision_share", 0.9, Evidence(chosen=outcome(share=share)))
    assert (found.state, found.exit_code) == (state, code)


@pytest.mark.parametrize(
    ("key", "field", "good", "bad"),
    [
        ("size_mb", "size_mb", 3.0, 30.0),
        ("memory_mb", "memory_mb", 3.0, 30.0),
        ("parity", "parity", 3.0, 30.0),
    ],
)
def test_sizes_memory_and_parity_are_compared(key: str, field: str, good: float, bad: float):
    assert judged(key, 10, Evidence(chosen=outcome(**{field: good}))).state == "pass"
    assert judged(key, 10, Evidence(chosen=outcome(**{field: bad}))).state == "fail"


def test_a_speed_up_is_judged_by_its_ratio():
    assert judged("speedup", 1.5, Evidence(chosen=outcome(), speedup=(2.0, 1.9, 2.1))).state == "pass"
    assert judged("speedup", 2.5, Evidence(chosen=outcome(), speedup=(2.0, 1.9, 2.6))).state == "fail"
    assert judged("speedup", 1.5, Evidence(chosen=outcome(), why_no_device="x")).state == "not measured"


def whole(*verdicts: Verdict, **words: object) -> Outcome:
    given = {
        "name": "n",
        "device": "d",
        "title": "t",
        "measured_on": {},
        "model": {},
        "variants": (),
        "chosen": "",
        "reference": "",
        "verdicts": verdicts,
    }
    return Outcome(**{**given, **words})  # type: ignore[arg-type]


def test_a_broken_contract_comes_before_a_failed_gate():
    fail = Verdict(gate="a", limit=1, found="2", state="fail")
    assert whole().exit_code == 0
    assert whole(fail).exit_code == 3
    assert whole(fail, dataclasses.replace(fail, exit_code=4)).exit_code == 4


def test_what_was_not_measured_fails_only_where_it_must_not():
    missing = Verdict(gate="a", limit=1, found="-", state="not measured")
    assert whole(missing).exit_code == 0
    assert "not measured" in whole(missing).words
    assert whole(missing, require_measured=True).exit_code == 3
