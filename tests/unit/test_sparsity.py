"""2:4 sparsity: the pattern, the guard, and what a build is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.calibration.refit import Refitted, refit
from edgekit.devices.jetpacks import target_for
from edgekit.devices.profiles import profile_of
from edgekit.graph.onnx_file import arrays_of, read_onnx, save_onnx
from edgekit.graph.sparsity import is_2_4, mask_2_4, prunable, sparse_layers
from edgekit.lowering.protocol import Options
from edgekit.lowering.tensorrt import PLUGIN as LOWERING
from edgekit.passes.protocol import Candidate, Change, Context
from edgekit.passes.sparsify_2_4 import PLUGIN, Settings
from tests.contract.test_plugins import inputs, network_of, plan_of

pytestmark = pytest.mark.light


def test_the_two_largest_of_each_four_along_the_input_channels_stay():
    weight = np.array([[3.0, -5.0, 1.0, 2.0, 0.0, 0.0, 7.0, -1.0]])
    assert (weight * mask_2_4(weight, 1)).tolist() == [[3.0, -5.0, 0.0, 0.0, 0.0, 0.0, 7.0, -1.0]]
    rng = np.random.default_rng(0)
    conv = rng.normal(size=(6, 8, 3, 3))
    kept = mask_2_4(conv, 1)
    assert kept.reshape(6, 2, 4, 3, 3).sum(2).tolist() == np.full((6, 2, 3, 3), 2).tolist()
    assert is_2_4(conv * kept, 1)
    assert not is_2_4(conv, 1)
    assert not is_2_4(conv[:, :6], 1), "six channels are no fours"
    assert is_2_4(np.zeros((4, 8)), 1)


@pytest.fixture
def detector(detector: Path, tmp_path: Path) -> Path:
    """Return the squares' detector with weights everywhere: its own are zero nearly throughout."""
    model, rng = read_onnx(detector), np.random.default_rng(3)
    for stored in model.graph.initializer:
        if stored.name in {"second.w", "cells.w"}:
            weight = numpy_helper.to_array(stored)
            noisy = weight + rng.normal(scale=0.01, size=weight.shape)
            stored.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), stored.name))
    path = tmp_path / "dense.onnx"
    save_onnx(model, path)
    return path


def run(detector: Path, out: Path, score: Callable[[Candidate], float] | None, **words: float) -> Change:
    out.mkdir()
    context = Context(
        out=out, samples=lambda: iter(inputs()), digest="test", score=score, why_no_score="no labels"
    )
    return PLUGIN.run(network_of(detector), Settings(**words), context)


def test_what_keeps_accuracy_is_pruned_and_told_to_the_build(detector: Path, tmp_path: Path):
    assert [n.name for n in prunable(read_onnx(detector))] == ["second", "cells"], (
        "three channels are no fours"
    )
    change = run(detector, tmp_path / "pass", lambda _: 0.8)
    assert change.changed
    assert change.facts["sparse_layers"] == 2
    model = read_onnx(change.network.main.path)
    assert set(sparse_layers(model)) >= {"second", "cells"}
    out = tmp_path / "lowered"
    for name, wanted in (("jetson-agx-orin", True), ("jetson-xavier-nx", None)):
        folder = out / name
        folder.mkdir(parents=True)
        options = Options(precision="int8", target=target_for(profile_of(name)))
        LOWERING.lower(change.network, plan_of(detector), options, folder)
        builds = json.loads((folder / "build.json").read_text())["builds"]
        assert [b.get("sparse") for b in builds] == [wanted, wanted], "Volta has no sparse kernels"


def test_the_guard_exempts_the_fewest_layers_and_refuses_where_none_passes(detector: Path, tmp_path: Path):
    dense = {n: arrays_of(read_onnx(detector))[f"{n}.w"] for n in ("second", "cells")}

    def spoiled(candidate: Candidate) -> float:
        arrays = arrays_of(read_onnx(candidate[0].main.path))
        # Pruning the layer that the guard ranks worst costs accuracy.
        return 0.8 - 0.1 * (not np.array_equal(arrays[f"{worst}.w"], dense[worst]))

    worst = run(detector, tmp_path / "rank", lambda c: float(c[0].main.path.name != "try0.onnx")).facts[
        "exempted"
    ][0]
    change = run(detector, tmp_path / "one", spoiled)
    assert (change.facts["sparse_layers"], change.facts["exempted"]) == (1, [worst])
    first = iter([0.8])
    refused = run(detector, tmp_path / "none", lambda _: next(first, 0.1))
    assert not refused.changed
    assert refused.network == network_of(detector)
    assert "accuracy allows no layer to be pruned" in refused.facts["state"]


def test_without_labels_nothing_is_pruned_and_that_is_said(detector: Path, tmp_path: Path):
    change = run(detector, tmp_path / "pass", None)
    assert not change.changed
    assert "not judged: no labels" in change.facts["state"]
    with pytest.raises(ValueError, match="0.5"):
        Settings(max_drop=2.0)


def conv_net(weight: np.ndarray, bias: np.ndarray | None, **words: list[int]) -> onnx.ModelProto:
    """Return a network of one convolution behind an identity."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weight.shape[1], 12, 12])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(weight, "w")]
    names = ["a", "w"]
    if bias is not None:
        stored.append(numpy_helper.from_array(bias, "b"))
        names.append("b")
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="front"),
        helper.make_node("Conv", names, ["y"], name="conv", **words),
    ]
    graph = helper.make_graph(nodes, "one", [given], [made], stored)
    # What the oldest onnxruntime that edgekit takes still reads.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def outputs(model: onnx.ModelProto, samples: list[dict[str, np.ndarray]]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, s)[0].ravel() for s in samples])


def with_layer(model: onnx.ModelProto, one: Refitted) -> onnx.ModelProto:
    done = onnx.ModelProto()
    done.CopyFrom(model)
    for stored in done.graph.initializer:
        value = one.weight if stored.name == "w" else one.bias
        stored.CopyFrom(numpy_helper.from_array(value, stored.name))
    return done


@pytest.mark.parametrize("words", [{}, {"pads": [1, 1, 1, 1], "strides": [2, 2]}, {"dilations": [2, 2]}])
def test_where_channels_repeat_each_other_fitting_loses_nothing(words: dict[str, list[int]]):
    """Channels 1 and 3 of each four are copies of 0 and 2: two weights can say what four said."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(6, 8, 3, 3)).astype(np.float32)
    samples = []
    for _ in range(12):
        half = rng.random((1, 4, 12, 12), np.float32)
        samples.append({"x": np.repeat(half, 2, axis=1)})
    model = conv_net(weight, rng.normal(size=6).astype(np.float32), **words)

    def pairs(important: np.ndarray, axis: int) -> np.ndarray:
        kept = np.zeros_like(important, bool)
        kept[:, [0, 2, 4, 6]] = True
        return kept

    one = refit(model, ["conv"], samples, pairs, seed=0)["conv"]
    assert is_2_4(one.weight, 1)
    dense = outputs(model, samples)
    fitted = outputs(with_layer(model, one), samples)
    plain = outputs(with_layer(model, Refitted(weight=weight * pairs(weight, 1), bias=one.bias)), samples)
    assert np.abs(fitted - dense).max() < 0.05 * np.abs(dense).max()
    assert np.linalg.norm(fitted - dense) < 0.1 * np.linalg.norm(plain - dense)


def test_a_shift_that_pruning_causes_goes_into_the_bias():
    """Inputs that never change are worth a constant, and the bias can say it."""
    weight = np.ones((1, 4, 1, 1), np.float32)
    model = conv_net(weight, np.zeros(1, np.float32))
    samples = [{"x": np.full((1, 4, 12, 12), 0.5, np.float32)} for _ in range(4)]
    one = refit(model, ["conv"], samples, mask_2_4, seed=0)["conv"]
    found = outputs(with_layer(model, one), samples)
    assert np.allclose(found, 2.0, atol=0.03)


def test_fitted_pruning_is_what_the_pass_does_unless_told_otherwise(detector: Path, tmp_path: Path):
    fitted, plain = (run(detector, tmp_path / str(r), lambda _: 0.8, refit=r) for r in (True, False))
    dense = arrays_of(read_onnx(detector))["cells.w"]
    one, two = (arrays_of(read_onnx(c.network.main.path))["cells.w"] for c in (fitted, plain))
    assert np.isin(two[two != 0], dense).all(), "magnitude pruning keeps values"
    assert not np.isin(one[one != 0], dense).all()
    assert is_2_4(one, 1)
    assert (fitted.facts["refit"], plain.facts["refit"]) == (True, False)
