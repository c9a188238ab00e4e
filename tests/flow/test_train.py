"""The train stage: a killed run goes on exactly, compile trains on its way, recipes for real data start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import edgekit
from tests.conftest import ROOT, run_edgekit
from tests.tiny import write_data

RUN = """
import sys
import time
from dataclasses import replace
from pathlib import Path
import torch
from edgekit.data.dataset import read_split
from edgekit.models.architectures import architecture
from edgekit.models.torch_models import fresh
from edgekit.training.batches import Batches
from edgekit.training.loop import Run
from edgekit.training.settings import TrainPart

settings = TrainPart(
    epochs=6, batch=8, imgsz=64, loss="slide", mu_mode="ema", warmup_epochs=1, close_mosaic=2, threads=1,
    precision="fp32", seed=3, average=0.99,
)
torch.manual_seed(settings.seed)
torch.set_num_threads(1)
model = fresh(architecture("ms-yolo", nc=2))
batches = Batches(read_split(Path(sys.argv[1]), "train").samples, settings)

class Told(Batches):
    def epoch(self, number):
        for place, batch in enumerate(super().epoch(number)):
            print("at", number, place, flush=True)
            if f"{number} {place}" == sys.argv[3]:
                time.sleep(600)
            yield batch

work = Path(sys.argv[2])
work.mkdir(exist_ok=True)
Run(model=model, batches=Told(batches.samples, settings), settings=settings, work=work).train()
"""


def start(data: Path, work: Path, stop: str = "") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(data), str(work), stop], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def state_of(work: Path) -> tuple[dict[str, np.ndarray], dict]:
    with safe_open(str(work / "state.safetensors"), "np") as file:
        words = json.loads(file.metadata()["state"])
    return load_file(work / "state.safetensors"), words


@pytest.mark.slow
def test_a_training_killed_inside_an_epoch_ends_as_the_unbroken_one(tmp_path: Path):
    data = write_data(tmp_path / "data", train=64, val=8)
    whole = start(data, tmp_path / "whole")
    assert whole.communicate()[0].count("at ") == 48
    assert whole.returncode == 0
    # Killed in the third epoch, then again in the fifth; each time inside it.
    for mark in ("2 4", "4 2"):
        broken = start(data, tmp_path / "broken", mark)
        for line in broken.stdout:
            if line.strip() == f"at {mark}":
                broken.send_signal(signal.SIGKILL)
                break
        assert broken.wait() == -signal.SIGKILL
        broken.stdout.close()
    last = start(data, tmp_path / "broken")
    steps = last.communicate()[0].split("\n")
    assert last.returncode == 0
    assert steps[0] == "at 4 0", "it went on after the last whole epoch"
    one, other = state_of(tmp_path / "whole"), state_of(tmp_path / "broken")
    assert one[0].keys() == other[0].keys()
    assert any(k.startswith("optimizer.") for k in one[0])
    assert "loss.mu" in one[0]
    for key, value in one[0].items():
        assert np.abs(value.astype(float) - other[0][key].astype(float)).max(initial=0) <= 1e-5, key
    for a, b in zip(one[1]["history"], other[1]["history"], strict=True):
        for key in ("box_loss", "cls_loss", "dfl_loss", "lr"):
            assert a[key] == pytest.approx(b[key], abs=1e-5), (a["epoch"], key)


def recipe(folder: Path, data: Path, **train: object) -> Path:
    path = folder / "squares.yaml"
    words = {
        "epochs": 2,
        "batch": 8,
        "imgsz": 64,
        "threads": 1,
        "warmup_epochs": 0.5,
        "val_images": 6,
        **train,
    }
    path.write_text(
        f"""schema: edgekit/recipe/v1
model: {{name: ms-yolo}}
data: {{path: {data}, samples: 32}}
train: {json.dumps(words)}
passes: [simplify, quantize-int8]
export: {{imgsz: 64}}
bench: {{mode: smoke}}
"""
    )
    return path


@pytest.mark.slow
def test_train_writes_weights_with_their_record_and_compile_takes_the_same_ones(
    tmp_path: Path, squares: Path
):
    path = recipe(tmp_path, squares, loss="slide")
    env = {"EDGEKIT_CACHE": str(tmp_path / "cache")}
    ran = run_edgekit("train", path, "-o", tmp_path / "w", "--json", env=env)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["fresh"]
    assert [e["epoch"] for e in found["history"]] == [1, 2]
    kept = max(found["history"], key=lambda e: (e["metric"], e["epoch"]))
    assert (found["best_epoch"], found["best"]) == (kept["epoch"], kept["metric"])
    assert found["settings"]["loss"] == "slide"
    with safe_open(str(tmp_path / "w" / "squares.safetensors"), "np") as file:
        words = file.metadata()
    assert json.loads(words["classes"]) == ["white", "red"]
    assert json.loads(words["record"])["history"] == found["history"]
    again = run_edgekit("train", path, "-o", tmp_path / "w", env=env)
    assert again.code == 0
    assert "finished before" in again.out
    assert again.out.count("kept") == 2
    made = run_edgekit("compile", path, "--quick", "-o", tmp_path / "out", "--json", env=env)
    assert made.code == 0, made.err
    report = json.loads(made.out)
    assert report["model"]["classes"] == ["white", "red"]
    assert "epoch 1" not in made.err, "the finished training is taken from the cache"
    with edgekit.load(report["bundle"]) as model:
        assert model.contract.answers.layout == "yolov8-logits"
        answer = model(cv2.imread(str(next((squares.parent / "images/val").glob("*.png")))))
    assert answer.boxes.shape == (len(answer), 4)
    assert answer.names == ("white", "red")


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_and_weights_are_a_start(tmp_path: Path, squares: Path):
    from edgekit.jobs.train import packed
    from edgekit.models.architectures import architecture
    from edgekit.models.torch_models import fresh

    record = {"architecture": "ms-yolo", "classes": ["white", "red"], "options": {}}
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(packed(fresh(architecture("ms-yolo", nc=2)).state_dict(), record))
    path = recipe(tmp_path, squares, epochs=1, teacher="ms-yolo", teacher_weights=str(teacher), val_images=0)
    text = path.read_text().replace("{name: ms-yolo}", f"{{name: ms-yolo, weights: {teacher}}}")
    path.write_text(text)
    ran = run_edgekit("train", path, "-o", tmp_path / "w", "--json", "--work-dir", tmp_path / "c")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["history"][0]["distill_loss"] > 0
    assert found["taken_from_weights"] > 300
    assert found["best"] is None


def visdrone(root: Path) -> Path:
    """Write a folder in VisDrone2019-DET's own layout."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        folder = root / f"VisDrone2019-DET-{split}"
        for kind in ("images", "annotations"):
            (folder / kind).mkdir(parents=True)
        for k in range(count):
            cv2.imwrite(str(folder / "images" / f"{k:07d}.jpg"), rng.integers(0, 255, (96, 160, 3), np.uint8))
            rows = [
                "10,20,30,16,1,4,0,0",
                "0,0,40,30,0,0,0,0",
                "100,50,8,12,1,1,0,1",
                "5,5,9,9,1,11,0,0",
                "150,80,20,30,1,10,0,0,",
            ]
            (folder / "annotations" / f"{k:07d}.txt").write_text("\n".join(rows) + "\n")
    return root


def flir(root: Path) -> Path:
    """Write a folder in FLIR ADAS v2's own layout."""
    rng = np.random.default_rng(0)
    kinds = [(1, "person"), (2, "bike"), (3, "car"), (10, "light"), (17, "dog"), (12, "sign")]
    for folder, count in (("images_thermal_train", 4), ("images_thermal_val", 2)):
        (root / folder / "data").mkdir(parents=True)
        images, marks = [], []
        for k in range(count):
            name = f"data/video-{k:03d}.jpg"
            cv2.imwrite(str(root / folder / name), rng.integers(0, 255, (64, 80), np.uint8))
            images.append({"id": k, "file_name": name, "width": 80, "height": 64})
            for n, (kind, _) in enumerate(kinds):
                marks.append(
                    {"id": len(marks), "image_id": k, "category_id": kind, "bbox": [8 * n, 10, 8, 20]}
                )
        data = {
            "images": images,
            "annotations": marks,
            "categories": [{"id": i, "name": n} for i, n in kinds],
        }
        (root / folder / "coco.json").write_text(json.dumps(data))
    return root


def test_visdrone_is_converted_from_its_own_layout(tmp_path: Path):
    source = visdrone(tmp_path / "source")
    ran = run_edgekit("data", "convert", "visdrone", source, "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["images"] == {"train": 4, "val": 2}
    assert found["boxes"] == {"train": 12, "val": 6}
    assert found["left_out"] == 12
    rows = (tmp_path / "out/labels/train/0000000.txt").read_text().splitlines()
    # x 10, y 20, 30 x 16 of 160 x 96 is class 3; the last is cut at the right and lower edge.
    assert rows[0] == "3 0.156250 0.291667 0.187500 0.166667"
    assert rows[1].startswith("0 ")
    assert rows[2] == "9 0.968750 0.916667 0.062500 0.166667"
    first = source / "VisDrone2019-DET-train/images/0000000.jpg"
    assert first.stat().st_ino == (tmp_path / "out/images/train/0000000.jpg").stat().st_ino
    again = run_edgekit("data", "convert", "visdrone", source, "-o", tmp_path / "out")
    assert (again.code, "is there already" in again.err) == (2, True)
    bad = source / "VisDrone2019-DET-val/annotations/0000001.txt"
    bad.write_text("1,2,3\n")
    wrong = run_edgekit("data", "convert", "visdrone", source, "-o", tmp_path / "other")
    assert wrong.code == 2
    assert "0000001.txt:1" in wrong.err
    assert not (tmp_path / "other").exists()


def test_flir_is_converted_from_its_own_layout(tmp_path: Path):
    source = flir(tmp_path / "source")
    ran = run_edgekit("data", "convert", "flir", source, "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["boxes"] == {"train": 20, "val": 10}
    assert found["left_out"] == 6
    rows = (tmp_path / "out/labels/val/video-000.txt").read_text().splitlines()
    assert rows[0] == "0 0.050000 0.312500 0.100000 0.312500"
    assert [r.split()[0] for r in rows] == ["0", "1", "2", "6", "8"]
    missing = run_edgekit("data", "convert", "flir", tmp_path, "-o", tmp_path / "x")
    assert missing.code == 2
    assert "images_thermal_train" in missing.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hierlight-yolo-n-visdrone", "ms-yolo-flir"])
def test_the_recipes_for_real_data_run_to_their_first_epoch(name: str, tmp_path: Path):
    kind, make = ("visdrone", visdrone) if "visdrone" in name else ("flir", flir)
    ran = run_edgekit("data", "convert", kind, make(tmp_path / "source"), "-o", tmp_path / kind)
    assert ran.code == 0, ran.err
    path = tmp_path / f"{name}.yaml"
    text = (ROOT / "recipes" / f"{name}.yaml").read_text()
    # The made folders hold four images; all else is the recipe as it is shipped.
    path.write_text(text.replace("  batch: 64\n", "  batch: 4\n").replace("  batch: 16\n", "  batch: 4\n"))
    process = subprocess.Popen(
        [sys.executable, "-c", "from edgekit.cli import main; main()", "train", str(path), "--work-dir", str(tmp_path / "c")],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    began, said = time.monotonic(), ""
    for line in process.stderr:
        said += line
        if line.startswith("epoch 1 of"):
            break
        assert time.monotonic() - began < 300, said
    process.terminate()
    assert process.wait(60) in {130, -signal.SIGTERM}, said
    process.stderr.close()
    assert "epoch 1 of" in said, said


FAULTS = {
    "  lr: 5\n": "train.lr: should be 1e-07 to 1",
    "  imgsz: 100\n": "multiple of 32",
    "  loss: focal\n": "train.loss",
    "  los: slide\n": "Did you mean 'loss'",
    "  teacher: yolov8m\n": "teacher_weights",
}


@pytest.mark.parametrize("line", FAULTS)
def test_faults_of_the_train_part_are_named_with_their_line(line: str, tmp_path: Path, squares: Path):
    path = tmp_path / "r.yaml"
    path.write_text(
        f"schema: edgekit/recipe/v1\nmodel: {{name: ms-yolo}}\ndata: {{path: {squares}}}\ntrain:\n{line}"
    )
    ran = run_edgekit("train", path)
    assert ran.code == 2
    assert FAULTS[line] in ran.err
    assert "r.yaml:" in ran.err


def test_a_recipe_without_a_train_part_or_with_a_trained_model_is_refused(tmp_path: Path, squares: Path):
    path = tmp_path / "r.yaml"
    path.write_text("schema: edgekit/recipe/v1\nmodel: {name: ms-yolo}\n")
    assert run_edgekit("train", path).code == 2
    path.write_text(
        f"schema: edgekit/recipe/v1\nmodel: {{name: ms-yolo-thermal}}\ndata: {{path: {squares}}}\ntrain: {{}}\n"
    )
    ran = run_edgekit("train", path)
    assert (ran.code, "trained already" in ran.err) == (2, True)


MISFITS = {
    "train:\n": "is empty",
    "train: {mu_mode: ema}\n": "goes with `loss: slide`",
    "train: {distill: 2}\n": "goes with `teacher`",
    "train: {epochs: 1}\npreprocess: {color: bgr}\n": "letterboxed RGB",
    "train: {epochs: 1}\nexport: {imgsz: 650}\n": "multiple of 32",
}


@pytest.mark.parametrize("part", MISFITS)
def test_what_training_would_ignore_or_break_on_is_refused_before_it_begins(
    part: str, tmp_path: Path, squares: Path
):
    path = tmp_path / "r.yaml"
    path.write_text(f"schema: edgekit/recipe/v1\nmodel: {{name: ms-yolo}}\ndata: {{path: {squares}}}\n{part}")
    ran = run_edgekit("train", path)
    assert ran.code == 2, ran.err
    assert MISFITS[part] in ran.err


def test_broken_or_foreign_weights_are_refused_with_what_is_wrong(tmp_path: Path, squares: Path):
    from safetensors.numpy import save_file

    from edgekit.core.places import shipped

    whole = (shipped("models") / "ms-yolo-thermal.safetensors").read_bytes()
    cut, foreign = tmp_path / "cut.safetensors", tmp_path / "foreign.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    save_file({"some.weight": np.zeros(3, np.float32)}, foreign)
    for weights, words in (
        (cut, "ends before"),
        (foreign, "none of its 1 tensors"),
        (tmp_path, "cannot be read"),
    ):
        path = tmp_path / "r.yaml"
        path.write_text(
            f"schema: edgekit/recipe/v1\nmodel: {{name: ms-yolo, weights: {weights}}}\n"
            f"data: {{path: {squares}}}\ntrain: {{epochs: 1, imgsz: 64}}\n"
        )
        ran = run_edgekit("train", path, "--work-dir", tmp_path / "c")
        assert (ran.code, words in ran.err) == (2, True), ran.err
