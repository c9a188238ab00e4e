"""onnxruntime's providers in TensorRT's place: taken where they compute, refused where they fall back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.backends import engines, providers
from edgekit.backends import tensorrt as backend
from edgekit.core.errors import ContractError
from edgekit.core.records import Artifact
from tests.contract.test_plugins import inputs, network_of, reference
from tests.unit.test_engines import BOARD, Fake, ensure, files

pytestmark = pytest.mark.light
CPU = "CPUExecutionProvider"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    made = Fake(monkeypatch, tmp_path, "v10_3")
    made.does("refuse")
    return made


def test_this_onnxruntime_has_none_of_them():
    assert providers.available() == ()


@pytest.mark.parametrize("provider", [providers.TENSORRT, providers.CUDA])
def test_a_session_that_fell_back_is_refused_not_measured(detector: Path, tmp_path: Path, provider: str):
    """The real onnxruntime of this machine has the CPU alone, and says nothing when it takes that."""
    with pytest.raises(ContractError, match=provider):
        providers.opened(detector, provider, tmp_path, half=True)


def test_where_no_build_succeeds_each_provider_is_tried_and_told(
    detector: Path, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(providers, "available", lambda: (providers.TENSORRT, providers.CUDA))
    with pytest.raises(ContractError) as caught:
        ensure(files(detector, tmp_path / "v"))
    for provider in (providers.TENSORRT, providers.CUDA):
        assert f"{provider}: " in caught.value.message
    assert engines.listed() == []


def test_a_provider_that_computes_stands_in_and_says_so(
    detector: Path, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
):
    """The CPU provider plays the part: building, keeping, finding and running are real."""
    monkeypatch.setattr(providers, "available", lambda: (CPU,))
    monkeypatch.setattr(engines, "probed", lambda: BOARD)
    folder = files(detector, tmp_path / "v", weak=True)
    found = ensure(folder)
    assert found.provider == CPU
    assert found.meta["placed"] == {"CPU": 1.0}
    assert [a["outcome"] for a in found.meta["attempts"]][
        -1
    ] == f"built by onnxruntime's {CPU}, 100% of the time in it"
    assert CPU in found.facts()["tensorrt"], "a list of engines tells it from TensorRT's own"
    assert not ensure(folder).fresh
    artifact = Artifact(
        backend="tensorrt",
        precision="int8",
        main=folder / "model.onnx",
        contract=network_of(detector).contract,
    )
    assert json.loads((folder / "build.json").read_text())["builds"][-1]["model"] == found.meta["model"]
    (given,) = inputs(1)
    with backend.PLUGIN.open(artifact) as session:
        (one,), (two,) = session.infer(given).values(), reference(detector, given).values()
        assert np.allclose(one, two, atol=1e-3)
    assert {r.unit for r in backend.PLUGIN.receipt(artifact, given)} == {"CPU"}, "never called the GPU's"
