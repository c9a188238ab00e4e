"""The quantize pass: its guard, its ranking, its plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.calibration.search import fewest
from edgekit.core.errors import RecipeError
from edgekit.core.records import Network, QuantPlan
from edgekit.graph.onnx_file import read_onnx
from edgekit.jobs.notes import guard_notes
from edgekit.jobs.variants import NARROW, int8_styles
from edgekit.lowering.qdq import Style, quantize_weight, write_qdq
from edgekit.passes import quantize_int8
from edgekit.passes.protocol import Context
from edgekit.passes.quantize_int8 import Settings, exempt
from tests.contract.test_plugins import inputs, network_of, plan_of

pytestmark = pytest.mark.light


@pytest.mark.parametrize(
    ("layers", "enough"),
    [(64, k) for k in (1, 2, 5, 12, 13, 40, 63)] + [(3, 2), (8, 5), (20, 13), (31, 31), (1, 1)],
)
def test_bisection_finds_the_fewest_layers_within_eight_runs(layers: int, enough: int):
    tried: list[int] = []

    def accuracy(count: int) -> float:
        tried.append(count)
        return 1.0 if count >= enough else 0.0

    found = fewest(accuracy, 0.5, layers, 8)
    assert len(tried) <= 8
    assert found is not None
    assert enough <= found <= min(enough + 6, layers)


def test_a_guard_that_nothing_satisfies_says_so():
    assert fewest(lambda _: 0.0, 0.5, 64, 8) is None


def context(tmp_path: Path, scores: dict[int, float], float_score: float = 0.9) -> Context:
    """A context whose accuracy depends on how many layers are int8."""

    def score(candidate: tuple[Network, QuantPlan | None]) -> float:
        plan = candidate[1]
        return float_score if plan is None else scores[len(plan.int8_layers())]

    return Context(out=tmp_path, samples=lambda: iter(inputs()), digest="d", score=score)


def test_the_guard_keeps_layers_in_float_until_the_drop_holds(detector: Path, tmp_path: Path):
    change = quantize_int8.PLUGIN.run(
        network_of(detector), Settings(max_drop=0.05), context(tmp_path, {3: 0.5, 2: 0.88, 1: 0.9, 0: 0.9})
    )
    guard = change.facts["guard"]
    assert change.plan
    assert (guard["state"], len(guard["exempted"]), len(change.plan.int8_layers())) == ("held", 1, 2)
    first = guard["exempted"][0]
    assert first["output_error"] > 0
    # With its only exempted layer back in int8, accuracy is what all of int8 gave.
    assert first["accuracy_cost"] == pytest.approx(0.88 - 0.5)


def test_a_plan_that_holds_is_left_alone(detector: Path, tmp_path: Path):
    change = quantize_int8.PLUGIN.run(
        network_of(detector), Settings(max_drop=0.05), context(tmp_path, {3: 0.89})
    )
    assert change.facts["guard"]["exempted"] == []


def test_the_guard_of_errors_needs_no_labels_and_holds_its_limit(detector: Path, tmp_path: Path):
    def run(most: float) -> tuple[QuantPlan, dict]:
        given = Context(out=tmp_path, samples=lambda: iter(inputs()), digest="d")
        change = quantize_int8.PLUGIN.run(network_of(detector), Settings(max_error=most), given)
        assert change.plan
        return change.plan, change.facts["guard"]

    plan, easy = run(0.5)
    assert (easy["state"], easy["exempted"], easy["kept"]) == ("held", [], easy["int8"])
    assert len(plan.int8_layers()) == 3
    some, guard = run(easy["int8"] * 0.9)
    assert guard["state"] == "held"
    assert guard["kept"] <= 0.9 * easy["int8"]
    assert len(some.int8_layers()) == 3 - len(guard["exempted"]) < 3


def test_a_missed_guard_of_errors_is_told(detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quantize_int8, "output_error", lambda *_: 0.5)
    given = Context(out=tmp_path, samples=lambda: iter(inputs()), digest="d")
    change = quantize_int8.PLUGIN.run(network_of(detector), Settings(max_error=0.1), given)
    assert change.facts["guard"]["state"] == "missed"
    assert guard_notes("quantize-int8", change.facts) == [
        "quantize-int8: no choice of layers kept max_error 0.1 on calibration inputs, 0.5 is the least."
    ]


@pytest.mark.parametrize(
    ("given", "paints", "kind"),
    [
        ("", True, "extremes"),
        ("", False, "typical"),
        ("typical", True, "typical"),
        ("extremes", False, "extremes"),
    ],
)
def test_ranges_are_the_outermost_of_pipelines_and_typical_ones_of_all_else(
    given: str, paints: bool, kind: str
):
    assert Settings(ranges=given).kind(paints=paints) == kind


@pytest.mark.parametrize("words", [{"max_error": 0.0}, {"max_error": 0.1, "max_drop": 0.1}])
def test_a_guard_without_sense_is_refused(words: dict[str, float]):
    with pytest.raises(ValueError, match="max_error"):
        Settings(**words)


def test_a_plan_may_leave_what_stands_between_layers_in_float(detector: Path):
    model, plan = read_onnx(detector), plan_of(detector)
    style = Style(
        unsigned=True,
        full=True,
        spread=frozenset({"Sigmoid", "Mul", "Add", "Concat"}),
        biases=True,
        adds=True,
    )

    def quantized(one: QuantPlan) -> int:
        return sum(n.op_type == "QuantizeLinear" for n in write_qdq(model, one, style).graph.node)

    alone = write_qdq(model, replace(plan, between=False), Style(unsigned=True))
    assert quantized(replace(plan, between=False)) == sum(
        n.op_type == "QuantizeLinear" for n in alone.graph.node
    )
    assert quantized(replace(plan, between=False)) < quantized(plan)


@pytest.mark.parametrize(
    ("machine", "here", "narrow"),
    [
        ({"arch": "x86_64", "isa": ["avx2", "fma"]}, True, True), ({"arch": "x86_64", "isa": ["avx2", "avx_vnni"]}, True, False),
        ({"arch": "x86_64", "isa": ["avx512f", "avx512_vnni"]}, True, False), ({"arch": "aarch64", "isa": []}, True, False),
        ({"arch": "x86_64", "isa": ["avx2", "fma"]}, False, False),
    ],
)  # fmt: skip
def test_weights_have_seven_bits_where_sums_of_sixteen_would_saturate(
    machine: dict, here: bool, narrow: bool
):
    ask = SimpleNamespace(passport=machine, here=here)
    for backend in ("onnxruntime", "openvino"):
        found = int8_styles(ask, backend)
        assert (found == (NARROW,)) == narrow
        assert (NARROW in found) == narrow
    assert int8_styles(ask, "tensorrt") == ("",)


def test_layers_kept_by_name_stay_in_float(detector: Path, tmp_path: Path):
    change = quantize_int8.PLUGIN.run(
        network_of(detector), Settings(keep_float=("first",)), context(tmp_path, {})
    )
    assert change.plan
    assert change.plan.int8_layers() == {"second", "cells"}
    assert next(c.reason for c in change.plan.layers if c.name == "first") == "keep_float first"


def test_nothing_left_to_quantize_is_refused(detector: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match="no layer"):
        quantize_int8.PLUGIN.run(network_of(detector), Settings(keep_float=("*",)), context(tmp_path, {}))


def test_weights_are_quantized_per_output_channel_to_within_half_a_step():
    weight = (
        np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
        * np.array([1, 10, 0.1, 0])[:, None, None, None]
    )
    stored, scale = quantize_weight(weight.astype(np.float32), axis=0, limit=127, floor=1e-12)
    back = stored.astype(np.float32) * np.asarray(scale).reshape(-1, 1, 1, 1)
    assert stored.dtype == np.int8
    assert np.all(np.abs(back - weight) <= np.asarray(scale).reshape(-1, 1, 1, 1) / 2 + 1e-7)


def test_symmetric_style_has_no_zero_points_and_no_quantized_biases(detector: Path):
    plan = plan_of(detector)
    model = write_qdq(read_onnx(detector), plan, Style(unsigned=False))
    from edgekit.graph.onnx_file import arrays_of

    arrays = arrays_of(model)
    quantizers = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert quantizers
    assert all(not np.any(arrays[n.input[2]]) for n in quantizers if len(n.input) > 2)
    assert not [a for a in arrays.values() if a.dtype == np.int32]


def test_an_exempted_layer_has_no_quantized_weight(detector: Path):
    plan = exempt(plan_of(detector), ["cells"], "test")
    model = write_qdq(read_onnx(detector), plan, Style(unsigned=True))
    layer = next(n for n in model.graph.node if n.name == "cells")
    made = {o for n in model.graph.node if n.op_type == "DequantizeLinear" for o in n.output}
    assert layer.input[1] not in made
