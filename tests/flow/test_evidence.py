"""A slice of each evidence script, so that none of them rots."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, on_openvino, run_edgekit
from tests.sshd import WHY_NOT

pytestmark = pytest.mark.slow


def run_script(*words: object) -> str:
    """Run a script of the project; return what it printed."""
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_verdict_of_the_shipped_recipe_can_be_made_again():
    assert "map50" in run_script(ROOT / "scripts/evidence/uav_yolov8n.py", "--slice")


def test_the_comparison_of_detectors_can_be_trained_and_judged_again():
    said = run_script(ROOT / "scripts/evidence/detectors.py", "--slice")
    assert said.count("'cls_loss'") == 2, said
    assert "hierlight-yolo-n" in said
    assert "ms-yolo" in said


@pytest.mark.parametrize("what", ["accuracy", "detector", "serve"])
def test_growing_models_can_be_trained_and_timed_again(what: str):
    said = run_script(ROOT / "scripts/evidence/growing.py", what, "--slice")
    assert {"accuracy": "accuracy-resnet-control-s0", "detector": "detector-control", "serve": "above_twice"}[
        what
    ] in said


@pytest.mark.parametrize("what", ["slimdiff", "slimdiff_sd15", "slimdiff_time"])
def test_slimming_can_be_measured_again(what: str, tmp_path: Path):
    more = ["--speedup", "1.2"] if what == "slimdiff_time" else []
    run_script(
        ROOT / f"scripts/evidence/{what}.py",
        "--slice",
        "--work",
        tmp_path / "w",
        "--out",
        tmp_path / "out",
        *more,
    )
    found = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    if what == "slimdiff":
        assert found["arms"]["uniform 0.587"]["step_error"] < found["arms"]["magnitude 0.587"]["step_error"]
    elif what == "slimdiff_sd15":
        assert all(0.99 * a["asked"] <= a["removed"] for a in found["arms"].values())
        assert set(found["steps"]) == {"onnxruntime", "openvino"}
        assert all(
            set(s["median_s"]) == {"dense", "100M fewer", "keep 0.25"} for s in found["steps"].values()
        )
    else:
        assert found["delivered"][0] > 1


def test_fewer_bits_and_peers_of_pipelines_can_be_measured_again(tmp_path: Path):
    work = tmp_path / "w"
    run_script(ROOT / "scripts/evidence/slimdiff_int8.py", "--slice", "--work", work, "--out", tmp_path / "a")
    row = json.loads(next((tmp_path / "a").glob("int8-*.json")).read_text())["rows"][0]
    assert row["mb"] < 2
    assert 0 < row["latent_error"] < 0.01
    bundle = work / "weights-in-int8" / "out" / "glyphs-local" / "bundle"
    run_script(ROOT / "scripts/bench/vs_diffusers.py", bundle, "--rounds", 1, "--out", tmp_path / "b")
    rows = json.loads(next((tmp_path / "b").glob("vs_diffusers-*.json")).read_text())["rows"]
    assert rows["diffusers"]["apart"] == 0
    # An edgekit picture is rounded to 8 bits, its weights to int8.
    assert 0 < rows["edgekit onnxruntime-fp32"]["apart"] < 0.2


def test_the_bench_against_ultralytics_runs(tmp_path: Path):
    recipe = on_openvino("uav-yolov8n", tmp_path)
    ran = run_edgekit("compile", recipe, "--device", "local", "--quick", "-o", tmp_path)
    assert ran.code == 0, ran.err
    made = run_edgekit("data", "make", "uav-mini", "--train", 8, "--val", 24, "-o", tmp_path / "set")
    assert made.code == 0, made.err
    run_script(
        ROOT / "scripts/bench/vs_ultralytics.py", tmp_path / "uav-yolov8n-local" / "bundle", "--work", tmp_path / "w",
        "--data", tmp_path / "set" / "data.yaml", "--rounds", 1, "--images", 8, "--out", tmp_path / "b.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "b.json").read_text())
    assert len(found["ratios"]) == 5
    assert all(r["times_as_fast"] > 0 for r in found["ratios"])
    assert set(found["map50"]) == {"edgekit", "yolo export onnx", "yolo export openvino int8"}


def test_the_comparison_of_curves_can_be_trained_and_judged_again():
    said = run_script(ROOT / "scripts/evidence/gamma.py", "detect", "digits", "--slice")
    assert said.count("'curve': {'gamma'") == 2, said
    assert said.count("'curve': {}") == 2, said


def test_the_bench_of_packed_codes_runs():
    said = run_script(ROOT / "scripts/bench/sensor_front.py", "--slice")
    assert "encoder 4 bits" in said
    assert "onnxruntime   4 bits" in said


def test_the_evidence_of_sparsity_can_be_gathered_again():
    assert json.loads(run_script(ROOT / "scripts/evidence/sparsity.py", "--slice")) == {"layers": 3}


def test_the_evidence_of_engines_says_where_there_can_be_none():
    """This machine has no driver; on a board it says which TensorRT it found."""
    assert "no NVIDIA driver" in run_script(ROOT / "scripts/evidence/engines.py", "--slice")


def test_the_evidence_of_dialects_can_be_gathered_again():
    assert '"refused": 0' in run_script(ROOT / "scripts/evidence/jetson.py", "--slice")


def test_the_predictors_errors_for_tensorrt_are_those_that_are_told():
    said = json.loads(run_script(ROOT / "scripts/evidence/predictor.py", "--slice"))
    kept = json.loads((ROOT / "docs/evidence/predictor.json").read_text())
    assert said["held_out_by_family"]["all"]["median"] <= 0.10
    for part in ("held_out_by_family", "leave_one_device_out"):
        for name, one in kept[part].items():
            assert said[part][name]["rows"] == one["rows"]
            assert said[part][name]["median"] == pytest.approx(one["median"], abs=2e-3)


@pytest.mark.parametrize("name", ["compare", "telemetry"])
def test_the_evidence_of_benches_can_be_gathered_again(name: str):
    assert "{" in run_script(ROOT / "scripts/evidence" / f"{name}.py", "--slice")


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("name", ["cuts", "agents"])
def test_the_evidence_of_boards_can_be_gathered_again(name: str):
    run_script(ROOT / "scripts/evidence" / f"{name}.py", "--slice")


def test_the_bench_of_percentiles_runs():
    said = run_script(ROOT / "scripts/bench/percentiles.py", "--slice")
    assert said.count('"ratio"') == 2


def test_the_predictors_weights_can_be_fitted_again():
    lines = run_script(ROOT / "scripts/fit_predictor.py").splitlines()
    for line in lines:
        fitted, used = line.rsplit("(in use: ", 1)
        new, old = float(fitted.split()[-1]), float(used.rstrip(")"))
        assert new == pytest.approx(old, rel=0.1, abs=2e-4), line
