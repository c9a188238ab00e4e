"""Raw files and recordings: read as they are, converted from their sets' own layouts, drawn the same each time."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.codecs.sensor import Sensor
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import have
from edgekit.data.dataset import read_split
from edgekit.data.make import GENERATED, make_set
from edgekit.frames.raw import planes_of, read_signal, sensor_planes
from edgekit.jobs.sets import converted
from edgekit.metrics.classes import class_scores, drop_interval
from tests.dng import write_dng

HAS_RAWPY = have("rawpy")
# CI's Python 3.10 has the light side and [host] alone.
if os.environ.get("EDGEKIT_LAB_REQUIRED") and not HAS_RAWPY and sys.version_info >= (3, 11):
    raise RuntimeError("edgekit[raw] is required here and not installed")
raw = pytest.mark.skipif(not HAS_RAWPY, reason="edgekit[raw] is not installed")


def mosaic_of(seed: int = 0, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 4000, (side, side)).astype(np.uint16)


@pytest.mark.light
@pytest.mark.parametrize("suffix", [".npy", ".png", ".tif"])
def test_raw_files_come_back_value_by_value(suffix: str, tmp_path: Path):
    mosaic, path = mosaic_of(), tmp_path / f"frame{suffix}"
    np.save(path, mosaic) if suffix == ".npy" else cv2.imwrite(str(path), mosaic)
    assert np.array_equal(read_signal(path), mosaic)


@raw
def test_a_dng_comes_back_value_by_value(tmp_path: Path):
    mosaic = mosaic_of()
    assert np.array_equal(read_signal(write_dng(tmp_path / "a.dng", mosaic, black=60, white=4095)), mosaic)


@pytest.mark.light
@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "be"), (b"\x93NUMPY garbage", "read"), (None, "no such file"), ("colour", "no raw signal"), ("floats", "no raw signal")],
)  # fmt: skip
def test_what_is_no_raw_file_is_refused(content: object, word: str, tmp_path: Path):
    path = tmp_path / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        np.save(path, np.zeros((4, 4, 3), np.uint8) if content == "colour" else np.zeros((4, 4), np.float32))
    with pytest.raises(RecipeError, match=word):
        read_signal(path)


@pytest.mark.light
@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_an_empty_file_is_refused_by_name(suffix: str, tmp_path: Path):
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(b"")
    with pytest.raises(RecipeError, match="cut"):
        read_signal(path)


@pytest.mark.light
def test_values_that_the_sensor_cannot_give_are_refused_by_file(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.full((4, 4), 4101, np.uint32))
    with pytest.raises(RecipeError, match=r"a\.npy: values 4101 to 4101"):
        sensor_planes(tmp_path / "a.npy", Sensor(bits=12))
    assert sensor_planes(tmp_path / "a.npy", Sensor(bits=13)).dtype == np.uint16


@pytest.mark.parametrize(("name", "size"), [("uav-dark", 64), ("digits-dark", 16), ("wear-mini", 4)])
def test_a_size_that_cannot_be_drawn_is_refused(name: str, size: int, tmp_path: Path):
    with pytest.raises(RecipeError, match="size"):
        make_set(name, tmp_path / "x", train=1, val=1, size=size)


@pytest.mark.light
@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_planes_are_red_greens_blue_for_every_pattern(pattern: str):
    cell = np.array([["RGB".index(c) for c in pattern[:2]], ["RGB".index(c) for c in pattern[2:]]], np.uint16)
    planes = planes_of(np.tile(cell, (3, 5)), Sensor(bits=8, mosaic=pattern))
    assert planes.shape == (4, 3, 5)
    assert [int(p[0, 0]) for p in planes] == [0, 1, 1, 2]
    assert all(len(np.unique(p)) == 1 for p in planes)


def voc(name: str, box: tuple[int, int, int, int], kind: str) -> str:
    x1, y1, x2, y2 = box
    return (
        f"<annotation><size><width>64</width><height>64</height></size><object><name>{kind}</name><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>"
    )


@raw
def test_pascalraw_is_converted_from_its_own_layout(tmp_path: Path):
    source = tmp_path / "set"
    for folder in ("annotations", "original/raw", "trainval"):
        (source / folder).mkdir(parents=True)
    for k, kind in enumerate(("car", "person", "dog")):
        (source / f"annotations/2014_{k}.xml").write_text(voc(f"2014_{k}", (8, 16, 24, 48), kind))
        write_dng(source / f"original/raw/2014_{k}.dng", mosaic_of(k), black=60, white=4095, pattern="GRBG")
    (source / "trainval/train.txt").write_text("2014_0\n2014_2\n")
    (source / "trainval/test.txt").write_text("2014_1\n")
    done = converted("pascalraw", source, tmp_path / "out")
    assert (done.images, done.boxes, done.left_out) == ({"train": 2, "val": 1}, {"train": 1, "val": 1}, 1)
    train = read_split(done.data, "train")
    assert train.sensor == Sensor(bits=12, black=60, white=4095, mosaic="GRBG")
    assert train.samples[0].boxes.tolist() == [[0.25, 0.5, 0.25, 0.5]]
    assert np.array_equal(read_signal(train.samples[0].path), mosaic_of(0))
    with pytest.raises(RecipeError, match="there already"):
        converted("pascalraw", source, tmp_path / "out")
    with pytest.raises(RecipeError, match=r"train.txt"):
        converted("pascalraw", source / "original", tmp_path / "x")


@raw
def test_raw_nod_is_converted_one_camera_at_a_time(tmp_path: Path):
    source = tmp_path / "nod"
    for camera in ("Nikon750", "Sony_RX100m7"):
        folder = source / camera
        folder.mkdir(parents=True)
        for split in ("train", "val"):
            name = f"{camera}_{split}"
            write_dng(folder / f"{name}.dng", mosaic_of(), black=60, white=16383)
            told = {
                "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}],
                "images": [{"id": 0, "file_name": f"{name}.NEF", "width": 64, "height": 64}],
                "annotations": [{"image_id": 0, "category_id": 2, "bbox": [0, 0, 32, 16]}],
            }
            (folder / f"raw_new_{name}.json").write_text(json.dumps(told))
    with pytest.raises(RecipeError, match="2 cameras"):
        converted("raw-nod", source, tmp_path / "out")
    done = converted("raw-nod", source / "Nikon750", tmp_path / "out")
    val = read_split(done.data, "val")
    assert val.sensor
    assert (val.sensor.bits, val.sensor.white) == (14, 16383)
    assert (val.names[int(val.samples[0].classes[0])], val.samples[0].boxes.tolist()) == (
        "bicycle",
        [[0.25, 0.125, 0.5, 0.25]],
    )


def test_wear_becomes_windows_of_counts_split_by_person(tmp_path: Path):
    head = "sbj_id,right_arm_acc_x,right_arm_acc_y,right_arm_acc_z,label\n"
    for person in (1, 2):
        rows = [f"{person},0.5,-1.0,9.0,{'jogging' if k < 64 else ''}\n" for k in range(128)]
        (tmp_path / f"sbj_{person}.csv").write_text(head + "".join(rows))
    done = converted("wear", tmp_path, tmp_path / "out", window=32)
    assert (done.images, done.left_out) == ({"train": 3, "val": 3}, 6)
    split = read_split(done.data, "val")
    assert (split.task, split.names, split.samples[0].path.stem.partition("-")[2]) == (
        "classify",
        ("jogging",),
        "sbj_2",
    )
    # 12 bits over -8 to 8 g: 256 counts a g, and the sensor is full at 8 g.
    assert np.unique(read_signal(split.samples[0].path), axis=0).tolist() == [[128, -256, 2047]]
    with pytest.raises(RecipeError, match="left_leg_acc_x"):
        converted("wear", tmp_path, tmp_path / "x", position="left_leg")


def test_realworld_is_read_in_its_own_units(tmp_path: Path):
    for person in ("proband1", "proband2"):
        for activity in ("walking", "lying"):
            folder = tmp_path / "set" / person / f"acc_{activity}_csv"
            folder.mkdir(parents=True)
            rows = "".join(f"{k},{k * 20},9.80665,0.0,-19.6133\n" for k in range(40))
            (folder / f"acc_{activity}_forearm.csv").write_text("id,attr_time,attr_x,attr_y,attr_z\n" + rows)
    done = converted("realworld", tmp_path / "set", tmp_path / "out", window=32)
    train = read_split(done.data, "train")
    assert train.names == ("lying", "walking")
    assert np.unique(read_signal(train.samples[0].path), axis=0).tolist() == [[256, 0, -512]]
    with pytest.raises(RecipeError, match="forearm"):
        converted("realworld", tmp_path / "set", tmp_path / "x", position="nose")


@pytest.mark.parametrize("name", ["uav-dark", "wear-mini", "digits-dark"])
def test_a_drawn_set_is_the_same_each_time_and_its_splits_never_meet(name: str, tmp_path: Path):
    one = make_set(name, tmp_path / "one", train=24, val=12, size=128 if name == "uav-dark" else 0)
    two = make_set(name, tmp_path / "two", train=24, val=12, size=128 if name == "uav-dark" else 0, workers=1)
    files = [p.relative_to(one.parent) for p in sorted(one.parent.rglob("*")) if p.is_file()]
    assert len(files) >= 37
    assert all((one.parent / f).read_bytes() == (two.parent / f).read_bytes() for f in files)
    train, val = (read_split(one, s) for s in ("train", "val"))
    assert train.sensor == GENERATED[name].sensor
    seen = {read_signal(s.path).tobytes() for s in train.samples}
    assert not seen & {read_signal(s.path).tobytes() for s in val.samples}


def test_the_dark_is_dark_and_has_lights(tmp_path: Path):
    data = make_set("uav-dark", tmp_path / "dark", train=8, val=8, size=256)
    values = np.stack([read_signal(s.path) for s in read_split(data, "train").samples]).astype(float) - 64
    # Half of all pixels lie within the first step of a linear 4-bit code, and the brightest fill a quarter of the range.
    assert np.median(values) < 4031 / 15
    assert values.max() > 1000
    # Shot noise: where the mean signal is m, neighbours of one colour differ by about sqrt(2 m).
    greens = values[:, ::2, 1::2]
    apart = np.diff(greens, axis=2)
    flat = np.abs(greens[:, :, 1:] - 100) < 30
    assert np.median(np.abs(apart[flat])) == pytest.approx(0.6745 * np.sqrt(2 * 100), rel=0.35)


@pytest.mark.light
def test_f1_by_hand():
    truth, said = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    found = class_scores(truth, np.eye(3)[said], ["a", "b", "c"])
    # a: precision 1, recall 1/2; b: precision 1/3, recall 1; c: neither.
    assert found.by_class == pytest.approx({"a": 2 / 3, "b": 0.5, "c": 0.0})
    assert (found.macro_f1, found.top1) == (pytest.approx(7 / 18), 0.5)


def test_f1_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    truth, logits = scores_of(0)
    found = class_scores(truth, logits, [str(k) for k in range(6)])
    assert found.macro_f1 == pytest.approx(metrics.f1_score(truth, logits.argmax(1), average="macro"))
    assert found.top1 == pytest.approx(metrics.accuracy_score(truth, logits.argmax(1)))


def scores_of(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth, logits = rng.integers(0, 5, 300), rng.normal(size=(300, 6))
    logits[np.arange(300), truth] += 1
    return truth, logits


@pytest.mark.light
def test_the_interval_of_a_drop_holds_it():
    truth, logits = scores_of(0)
    worse = np.random.default_rng(1).normal(size=(300, 6))
    low, high = drop_interval(truth, logits, worse, metric="top1")
    drop = (logits.argmax(1) == truth).mean() - (worse.argmax(1) == truth).mean()
    assert 0 < low < drop < high < 1
    assert drop_interval(truth, logits, logits, metric="macro_f1") == (0.0, 0.0)
