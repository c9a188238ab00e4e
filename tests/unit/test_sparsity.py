"""2:4 sparsity: the pattern, the guard, and what a build is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

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
    assert "without fine-tuning" in refused.facts["state"]


def test_without_labels_nothing_is_pruned_and_that_is_said(detector: Path, tmp_path: Path):
    change = run(detector, tmp_path / "pass", None)
    assert not change.changed
    assert "not judged: no labels" in change.facts["state"]
    with pytest.raises(ValueError, match="0.5"):
        Settings(max_drop=2.0)
