"""A diffusion pipeline for a board that is not here: one TensorRT file a part, pictures judged on the host, times predicted."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import edgekit
from edgekit.backends import engines
from edgekit.backends.tensorrt import TensorRt
from edgekit.bundle.read import open_bundle
from edgekit.core.errors import ContractError
from edgekit.jobs.engine import _to_build
from edgekit.runtime.load import refusal
from tests import pictures
from tests.conftest import run_edgekit

pytestmark = pytest.mark.slow

PARTS = ("decoder", "main", "text_encoder")


@pytest.fixture(scope="module")
def jetson(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped pipeline with an int8 plan, compiled for a Jetson."""
    folder = tmp_path_factory.mktemp("jetson")
    path = pictures.recipe(folder, "quantize-int8", gates="latent_error: 0.05, latency_p99_ms: 50")
    words = ("--device", "jetson-orin-nano", "--precision", "int8", "-o", folder / "out")
    ran = run_edgekit("compile", path, *words)
    assert ran.code == 0, ran.err + ran.out
    return folder / "out" / "pics-jetson-orin-nano"


def test_int8_keeps_its_pictures_and_nothing_is_called_measured(jetson: Path):
    said = json.loads((jetson / "report.json").read_text())
    first = said["variants"][0]
    assert first["name"] == "tensorrt-int8"
    assert {"tensorrt-fp32", "onnxruntime-fp32"} < {v["name"] for v in said["variants"]}
    assert 0 < np.mean(said["paints"]["errors"]) < 0.05
    assert all(not v["latencies"] and v["predicted"] for v in said["variants"])
    assert said["measured_on"] == {}
    assert said["paints"]["image_ms"] is None
    assert said["paints"]["step_ratio"] is None
    states = {v["gate"]: v["state"] for v in said["verdicts"]}
    assert states["latent_error"] == "pass"
    assert states["latency_p99_ms"] == "not measured"
    checks = {c["name"] for c in first["checks"]}
    assert {"lint model.onnx", "decoder: lint model.onnx", "text_encoder: lint model.onnx"} <= checks


@pytest.mark.parametrize("part", PARTS)
def test_the_file_of_a_part_gives_what_its_golden_answers_say(jetson: Path, part: str):
    place = jetson / "bundle" / "variants" / "tensorrt-int8" / part
    contract = engines.contract_in(place)
    # onnxruntime reads no scales in fp16, which the int8 file has; its twin it reads.
    file = "fp16.onnx" if part == "main" else "model.onnx"
    session = ort.InferenceSession(place / file, providers=["CPUExecutionProvider"])
    for k in range(2):
        given, wanted = (
            dict(np.load(jetson / "bundle" / "golden" / part / f"{w}{k}.npz")) for w in ("inputs", "outputs")
        )
        assert {n: v.shape for n, v in given.items()} == {s.name: s.shape for s in contract.inputs}
        kinds = {i.name: i.type for i in session.get_inputs()}
        inputs = {n: v.astype(np.int32) if "int32" in kinds[n] else v for n, v in given.items()}
        for spec, found in zip(contract.outputs, session.run(None, inputs), strict=True):
            a, b = found.astype(np.float64).ravel(), wanted[spec.name].astype(np.float64).ravel()
            assert a @ b > 0.9999 * np.linalg.norm(a) * np.linalg.norm(b)


def test_every_part_is_built_from_its_own_file_and_tried_on_its_own_golden_answers(jetson: Path):
    bundle = open_bundle(jetson / "bundle")
    chosen = bundle.manifest.variants[0]
    parts = _to_build(bundle, chosen)
    assert sorted(parts) == list(PARTS)
    for name, (artifact, golden) in parts.items():
        assert artifact.main == jetson / "bundle" / "variants" / "tensorrt-int8" / name / "model.onnx"
        assert sorted(p.name for p in golden.iterdir()) == [
            "inputs0.npz", "inputs1.npz", "outputs0.npz", "outputs1.npz",
        ]  # fmt: skip


def test_a_board_paints_with_the_engines_only_when_all_are_built(
    jetson: Path, monkeypatch: pytest.MonkeyPatch
):
    bundle = open_bundle(jetson / "bundle")
    chosen, built = bundle.manifest.variants[0], set[str]()

    def found_for(folder: Path) -> Any:
        meta = {"precision": "int8" if folder.name == "main" else "fp32"}
        return engines.Engine(key=folder.name, folder=folder, meta=meta) if folder.name in built else None

    monkeypatch.setattr(engines, "found_for", found_for)
    # What a board's TensorRT says of itself; none is installed here.
    monkeypatch.setattr(TensorRt, "refusal", lambda self, machine: "")
    for name in PARTS:
        assert "no engine was built" in refusal(chosen, {"arch": "aarch64"}, bundle.folder)
        built.add(name)
    assert refusal(chosen, {"arch": "aarch64"}, bundle.folder) == ""


def test_a_packed_bundle_finds_its_engines_too(jetson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packed = tmp_path / "pics.ekb"
    assert run_edgekit("bundle", "pack", jetson / "bundle", "-o", packed).code == 0
    asked: list[str] = []

    def found_for(folder: Path) -> Any:
        asked.extend(e["precision"] for e in engines.builds_in(folder))
        return engines.Engine(
            key="k", folder=folder, meta={"precision": engines.builds_in(folder)[0]["precision"]}
        )

    monkeypatch.setattr(engines, "found_for", found_for)
    monkeypatch.setattr(TensorRt, "refusal", lambda self, machine: "")
    monkeypatch.setattr(
        importlib.import_module("edgekit.runtime.load"), "passport", lambda: {"arch": "aarch64"}
    )
    # Chosen, verified and opened: what is missing is the file of an engine that nobody built.
    with pytest.raises(FileNotFoundError, match="text_encoder/engine.plan"):
        edgekit.load(packed)
    assert {"int8", "fp16", "fp32"} == set(asked)


def test_this_machine_is_told_that_the_bundle_is_for_another(jetson: Path):
    with pytest.raises(ContractError, match="made for aarch64"):
        edgekit.load(jetson / "bundle")
    ran = run_edgekit("engine", "build", jetson / "bundle")
    assert ran.code == 7, ran.err
