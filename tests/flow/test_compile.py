"""Whole compiles of small real networks on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import edgekit
from edgekit.bundle.read import open_bundle
from tests.conftest import run_edgekit
from tests.tiny import scene, write_detector, write_two_inputs


def test_a_detector_goes_from_recipe_to_a_verified_bundle_with_reports(compiled: Path):
    report = json.loads((compiled / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert {p.name for p in compiled.iterdir()} == {"bundle", "report.html", "report.json", "report.md"}
    with open_bundle(compiled / "bundle") as opened:
        assert opened.manifest.data["device"]["measured"] is True
        assert "recipe.yaml" in opened.manifest.files


def test_the_bundle_finds_the_squares_that_are_there(compiled: Path, rng: np.random.Generator):
    image, marks = scene(rng)
    with edgekit.load(compiled / "bundle") as model:
        found = model(image)
    wanted = {(c, x * 8, y * 8) for c, x, y in marks}
    got = {
        (int(c), round(float(b[0])), round(float(b[1])))
        for c, b in zip(found.classes, found.boxes, strict=True)
    }
    assert got == wanted
    assert found.names == ("white", "red")


def test_float32_and_int8_are_judged_on_the_same_images(compiled: Path):
    report = json.loads((compiled / "report.json").read_text())
    by_name = {v["name"]: v for v in report["variants"] if v["accuracy"]}
    assert by_name["openvino-fp32"]["accuracy"]["value"] == pytest.approx(1.0)
    assert all(v["accuracy"]["images"] == 12 for v in by_name.values())


def test_the_same_compile_again_gives_the_same_bundle_from_kept_steps(
    compiled: Path, recipe: Path, tmp_path: Path
):
    before = {p.relative_to(compiled): p.read_bytes() for p in compiled.rglob("*") if p.is_file()}
    ran = run_edgekit("compile", recipe, "--device", "local", "-o", compiled.parent)
    assert ran.code == 0, ran.err
    assert "measure" not in ran.err
    assert before == {p.relative_to(compiled): p.read_bytes() for p in compiled.rglob("*") if p.is_file()}


def test_a_model_without_data_is_shipped_and_says_what_was_not_judged(classifier: Path, tmp_path: Path):
    ran = run_edgekit("compile", classifier, "-o", tmp_path)
    assert ran.code == 0, ran.err
    assert "not judged" in ran.out
    with edgekit.load(tmp_path / "blobs-local" / "bundle") as model:
        given = np.random.default_rng(1).standard_normal((1, 3, 32, 32), np.float32)
        assert model.run({"input": given})["logits"].shape == (1, 7)
        with pytest.raises(edgekit_error("RecipeError"), match="no pre- and post-processing"):
            model(np.zeros((32, 32, 3), np.uint8))


def edgekit_error(name: str):
    from edgekit.core import errors

    return getattr(errors, name)


@pytest.mark.slow
def test_a_model_of_two_inputs_runs_raw(tmp_path: Path):
    path = write_two_inputs(tmp_path / "pair.onnx")
    ran = run_edgekit("compile", path, "-o", tmp_path)
    assert ran.code == 0, ran.err
    left, right = np.arange(5, dtype=np.float32)[None], np.zeros((1, 5), np.float32)
    with edgekit.load(tmp_path / "pair-local" / "bundle") as model:
        given = model.run({"left": left, "right": right})
    assert given["best"].tolist() == [4]


@pytest.mark.slow
def test_a_raw_model_with_data_is_asked_for_its_preprocessing(detector: Path, squares: Path, tmp_path: Path):
    recipe = tmp_path / "raw.yaml"
    text = f"""schema: edgekit/recipe/v1
model: {{path: {detector}}}
answers: {{task: raw}}
data: {{path: {squares}, samples: 32}}
passes: [simplify, quantize-int8]
bench: {{mode: smoke}}
"""
    bare = write_detector(tmp_path / "bare.onnx")
    model = onnx.load(str(bare))
    del model.metadata_props[:]
    onnx.save(model, str(bare))
    recipe.write_text(text.replace(str(detector), str(bare)))
    refused = run_edgekit("compile", recipe, "-o", tmp_path)
    assert refused.code == 2
    assert "preprocess" in refused.err
    recipe.write_text(recipe.read_text() + "preprocess: {resize: letterbox}\n")
    ran = run_edgekit("compile", recipe, "-o", tmp_path, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["passes"]["quantize-int8"]["int8_layers"] == 3


@pytest.mark.slow
def test_a_pass_that_changes_the_graph_under_a_plan_is_refused_or_harmless(recipe: Path, tmp_path: Path):
    own = tmp_path / "order.yaml"
    text = (
        recipe.read_text()
        .replace("  - simplify\n", "")
        .replace("{max_drop: 0.02}\n", "{max_drop: 0.02}\n  - simplify\n")
    )
    own.write_text(text)
    ran = run_edgekit("compile", own, "-o", tmp_path)
    assert ran.code in {0, 2}, ran.err
    assert "bug" not in ran.err


@pytest.mark.slow
def test_a_precision_no_engine_here_has_is_refused_not_replaced(recipe: Path, tmp_path: Path):
    ran = run_edgekit("compile", recipe, "--precision", "fp32", "-o", tmp_path, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["variants"][0]["precision"] == "fp32"
    assert {v["precision"] for v in report["variants"]} == {"fp32"}


@pytest.mark.slow
def test_thread_counts_that_a_recipe_lists_are_variants_of_their_own(recipe: Path, tmp_path: Path):
    own = tmp_path / "threads.yaml"
    own.write_text(recipe.read_text().replace("mode: smoke", "mode: smoke, threads: [1, 2]"))
    ran = run_edgekit("compile", own, "-o", tmp_path, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert len({v["name"] for v in report["variants"] if v["precision"] == "fp32"}) == 4
    assert report["chosen"].endswith("-threads")


@pytest.mark.slow
def test_an_fp16_graph_is_tried_beside_float32_and_what_ran_is_told(recipe: Path, tmp_path: Path):
    own = tmp_path / "half.yaml"
    text = recipe.read_text().replace("  - quantize-int8: {max_drop: 0.02}\n", "  - to-fp16\n")
    own.write_text(text.replace("gates: {", "gates: {precision_share: 0.9, "))
    ran = run_edgekit("compile", own, "--precision", "fp16", "-o", tmp_path, "--json")
    report = json.loads(ran.out)
    verdict = next(v for v in report["verdicts"] if v["gate"] == "precision_share")
    # This CPU has no fp16 arithmetic: the receipt shows float32, and that breaks the contract.
    assert (ran.code, verdict["state"]) in {(4, "fail"), (0, "pass")}


def test_a_jetson_gets_a_profile_a_prediction_and_gates_that_were_not_measured(recipe: Path, tmp_path: Path):
    text = recipe.read_text().replace("bench:", "devices: {jetson-orin: {latency_p90_ms: 15}}\nbench:")
    own = tmp_path / "cam.yaml"
    own.write_text(text)
    ran = run_edgekit("compile", own, "--device", "jetson-orin", "-o", tmp_path, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    states = {v["gate"]: v["state"] for v in report["verdicts"]}
    assert states["latency_p90_ms"] == "not measured"
    assert report["variants"][0]["predicted"]["ms"] > 0
    folder = tmp_path / "cam-jetson-agx-orin" / "bundle"
    with open_bundle(folder) as opened:
        first = opened.manifest.variants[0]
        assert first.engine == "build-on-device"
        assert (folder / "variants" / first.name / "build.json").is_file()
    strict = run_edgekit("compile", own, "--device", "jetson-orin", "-o", tmp_path, "--require-measured")
    assert strict.code == 3


def test_an_impossible_budget_fails_and_names_what_would_be_nearer(recipe: Path, tmp_path: Path):
    own = tmp_path / "fast.yaml"
    own.write_text(recipe.read_text().replace("gates: {", "gates: {latency_p50_ms: 0.000001, "))
    ran = run_edgekit("compile", own, "-o", tmp_path, "--json")
    report = json.loads(ran.out)
    state = next(v["state"] for v in report["verdicts"] if v["gate"] == "latency_p50_ms")
    # An unstable run is not judged; its ways in are named all the same.
    assert ran.code == (3 if state == "fail" else 0)
    whats = [w["what"] for w in report["ways_in"]]
    assert any("imgsz 320" in w for w in whats)
    assert any("fp32" in w for w in whats)


def test_run_draws_an_image_a_folder_and_a_video(compiled: Path, squares: Path, tmp_path: Path):
    image = squares.parent / "images" / "val" / "000.png"
    one = run_edgekit("run", compiled / "bundle", image, "-o", tmp_path / "one.png")
    assert one.code == 0, one.err
    assert cv2.imread(str(tmp_path / "one.png")).shape == (64, 64, 3)
    many = run_edgekit("run", compiled / "bundle", image.parent, "-o", tmp_path / "many", "--json")
    assert many.code == 0, many.err
    assert len(json.loads(many.out)["answers"]) == 12
    movie = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(5):
        movie.write(cv2.imread(str(image)))
    movie.release()
    video = run_edgekit("run", compiled / "bundle", tmp_path / "in.avi", "-o", tmp_path / "out.avi", "--json")
    assert video.code == 0, video.err
    assert len(json.loads(video.out)["answers"]) == 5
    assert (tmp_path / "out.avi").stat().st_size > 0


def test_an_ekb_file_runs_like_its_folder(compiled: Path, squares: Path, tmp_path: Path):
    packed = run_edgekit("bundle", "pack", compiled / "bundle", "-o", tmp_path / "squares.ekb")
    assert packed.code == 0, packed.err
    image = cv2.imread(str(squares.parent / "images" / "val" / "000.png"))
    with edgekit.load(tmp_path / "squares.ekb") as packed_model, edgekit.load(compiled / "bundle") as model:
        np.testing.assert_array_equal(packed_model(image).boxes, model(image).boxes)


@pytest.mark.slow
def test_a_signed_bundle_verifies_with_its_key_and_no_other(recipe: Path, tmp_path: Path):
    for name in ("own", "other"):
        for words in (
            ["genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem"],
            ["pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub"],
        ):
            _openssl(words, tmp_path)
    ran = run_edgekit("compile", recipe, "-o", tmp_path, "--sign-key", tmp_path / "own.pem")
    assert ran.code == 0, ran.err
    folder = tmp_path / "squares-local" / "bundle"
    good = run_edgekit("bundle", "verify", folder, "--trusted-key", tmp_path / "own.pub")
    assert (good.code, "signature: good" in good.out) == (0, True)
    bad = run_edgekit("bundle", "verify", folder, "--trusted-key", tmp_path / "other.pub")
    assert bad.code == 6
    assert "Traceback" not in bad.err


def _openssl(words: list[str], cwd: Path) -> None:
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(["openssl", *words], cwd=cwd, check=True, capture_output=True)
