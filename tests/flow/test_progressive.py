"""Recipes with progressive-load: from a trained teacher to a bundle that grows while it serves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.frames.images import read_image
from tests.conftest import ROOT, run_edgekit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The demo, with a shorter training and int8 beside float32 on one engine."""
    folder = tmp_path_factory.mktemp("progressive")
    text = (ROOT / "recipes/progressive-digits.yaml").read_text()
    text = text.replace("epochs: 24", "epochs: 8").replace("train: {epochs: 12", "train: {epochs: 5")
    text = text.replace("export:", "  - quantize-int8\n\nexport:").replace(
        "samples: 128\n", "samples: 64\n  limit: 200\n"
    )
    text += "\ndevices:\n  local: {backend: onnxruntime}\n"
    (folder / "digits.yaml").write_text(text.replace("accuracy_drop: 0.01 ", "accuracy_drop: 0.1 "))
    ran = run_edgekit(
        "compile", folder / "digits.yaml", "--device", "local", "-o", folder, "--json", timeout=900
    )
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_the_bundle_answers_with_the_student_first_and_ends_as_the_teacher(compiled: dict):
    grows = compiled["grows"]
    assert grows["masks"] == ["SSSS", "TSSS", "TTSS", "TTTS", "TTTT"]
    # Less than 40 % of the whole model stands before the first answer.
    assert grows["first_bytes"] < 0.4 * grows["whole_bytes"]
    assert grows["accuracy"][-1] > 0.5
    assert compiled["passes"]["progressive-load"]["parity"] < 1e-4
    with edgekit.load(compiled["bundle"], limits=edgekit.Limits(until=0)) as model:
        frame = np.zeros((32, 32, 3), np.uint8)
        assert model.growing.plan.mask == "SSSS"
        student = model(frame).plain()
        model.growing.hold(None)
        assert model.settle(30).growing.metrics()["mask"] == "TTTT"
        assert model(frame).plain() != student


def test_the_last_step_is_the_model_that_was_judged(compiled: dict):
    accuracy = compiled["variants"][0]["accuracy"]["value"]
    assert compiled["grows"]["accuracy"][-1] == pytest.approx(accuracy, abs=0.011)
    torch = compiled["grows"]["in_torch"]
    assert len(torch) == 5


def test_stalls_first_answer_and_memory_are_measured_and_judged(compiled: dict):
    grows = compiled["grows"]
    assert grows["requests"][0] > 60
    assert grows["stall_ms"][2] >= grows["stall_ms"][1] >= 0
    # Steps that answer worse than the one before are jumped over.
    steps = [c[1] for c in grows["changes"]]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, 4)
    gates = {v["gate"]: v for v in compiled["verdicts"]}
    assert gates["first_answer_ms"]["state"] == "pass"
    assert "hashes checked" in gates["first_answer_ms"]["detail"]
    page = (Path(compiled["report"])).read_text()
    assert "Growing while it serves" in page
    assert "Accuracy over time" in page


def test_every_variant_of_the_bundle_grows_and_int8_segments_answer_alike(compiled: dict):
    manifest = json.loads((Path(compiled["bundle"]) / "manifest.json").read_text())
    assert {v["plan"] for v in manifest["variants"]} == {"progressive"}
    for variant in manifest["variants"]:
        steps = json.loads((Path(compiled["bundle"]) / variant["main"]).read_text())["steps"]
        assert all(s["accuracy"] is not None for s in steps)
        assert steps[-1]["accuracy"] > 0.5
    ran = run_edgekit("bundle", "verify", compiled["bundle"])
    assert ran.code == 0, ran.err
    ran = run_edgekit("bench", compiled["bundle"], "--device", "local")
    assert ran.code == 2
    assert "grows while it serves" in ran.err


def test_a_packed_bundle_runs_from_the_command_line_as_the_whole_model(compiled: dict, tmp_path: Path):
    cv2 = pytest.importorskip("cv2")
    packed = tmp_path / "digits.ekb"
    assert run_edgekit("bundle", "pack", compiled["bundle"], "-o", packed).code == 0
    picture = tmp_path / "seven.png"
    cv2.imwrite(str(picture), np.full((32, 32, 3), 90, np.uint8))
    ran = run_edgekit("run", packed, picture, "--json")
    assert ran.code == 0, ran.err
    with edgekit.load(packed) as model:
        assert json.loads(ran.out)["answers"][0]["answers"] == model.settle(30)(read_image(picture)).plain()


def recipe(folder: Path, model: str, passes: str, train: str = "", data: str = "digits-mini") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        f"schema: edgekit/recipe/v1\nmodel: {model}\ndata: {{path: {data}}}\n{train}passes:\n{passes}export: {{imgsz: 32}}\n"
    )
    return path


@pytest.mark.parametrize(
    ("model", "passes", "words"),
    [
        ("{name: resnet}", "  - progressive-load\n", "no weights, there is nothing to lead to"),
        ("{name: resnet}", "  - simplify\n  - progressive-load\n", "Put progressive-load first"),
        ("{name: resnet}", "  - progressive-load: {student: resnett}\n", "Did you mean 'resnet'?"),
        ("{name: resnet}", "  - progressive-load: {student: hierlight-yolo-n}\n", "of another kind"),
        ("{name: resnet}", "  - progressive-load: {options: {widht: [1]}}\n", "Did you mean 'widths'?"),
        ("{name: resnet}", "  - progressive-load: {masks: suffix}\n", "prefix"),
        ("{name: resnet}", "  - progressive-load: {alpha: 2}\n", "alpha should be a share"),
    ],
)
def test_what_cannot_grow_is_refused_before_any_work(model: str, passes: str, words: str, tmp_path: Path):
    ran = run_edgekit("compile", recipe(tmp_path, model, passes), "--device", "local", "-o", tmp_path)
    assert ran.code == 2
    assert words in ran.err
    assert "Traceback" not in ran.err


def test_a_wider_student_is_refused_before_it_is_trained(tmp_path: Path):
    train = "train: {epochs: 1, imgsz: 32, batch: 64, limit: 128, val_images: 0, average: 0}\n"
    path = recipe(
        tmp_path, "{name: resnet, options: {widths: [4, 4, 4, 4], depths: [1, 1, 1, 1], stem: imagenet}}",
        "  - progressive-load: {options: {widths: [4, 8, 4, 4]}, epochs: 1}\n", train,
    )  # fmt: skip
    ran = run_edgekit("compile", path, "--device", "local", "--quick", "-o", tmp_path)
    assert ran.code == 2
    assert "after stage 2 the student has 8 channels, the teacher 4" in ran.err
    assert "training the student" in ran.err
