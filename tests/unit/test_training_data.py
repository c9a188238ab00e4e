"""Training images: generated thermal scenes, tiles, augmentation, seeded batches; precision and recall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.errors import RecipeError
from edgekit.data.dataset import read_split
from edgekit.data.make import make_set
from edgekit.data.thermal_mini import CLASSES, draw_scene
from edgekit.metrics.coco_map import Found, Truth
from edgekit.metrics.operating_point import operating_point
from edgekit.training.augment import Picture, cut, fitted, joined, varied
from edgekit.training.batches import Batches
from edgekit.training.settings import TrainPart

STILL = TrainPart(
    batch=4, imgsz=64, mosaic=0, zoom=0, shift=0, hue=0, saturation=0, value=0, fliplr=0, warmup_epochs=0
)


def test_thermal_scenes_are_the_same_for_the_same_seed_and_lopsided_in_their_classes():
    one, again = (draw_scene(seed=0, split="train", index=3) for _ in range(2))
    assert (one.image == again.image).all()
    assert one.image.shape == (512, 640)
    assert one.image.dtype == np.uint8
    assert not (one.image == draw_scene(seed=1, split="train", index=3).image).all()
    scenes = [draw_scene(seed=0, split="train", index=k) for k in range(60)]
    counts = np.bincount(np.concatenate([s.classes for s in scenes]), minlength=len(CLASSES))
    assert counts[1] > 6 * counts[2] > 0, "cars against bicycles"
    for scene in scenes:
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()
        assert scene.boxes.min(initial=0) >= 0
        assert (scene.boxes.max(0, initial=0) <= 640).all()


def test_people_are_warmer_than_a_cold_street_and_colder_than_a_hot_one():
    apart = []
    for k in range(60):
        scene = draw_scene(seed=0, split="train", index=k)
        for (x1, y1, x2, y2), label in zip(scene.boxes.astype(int), scene.classes, strict=True):
            if CLASSES[label] == "person" and x2 - x1 > 20 and y2 < 505:
                body = scene.image[y1:y2, x1 + (x2 - x1) // 3 : x2 - (x2 - x1) // 3].mean()
                apart.append(float(body) - float(scene.image[y2 : y2 + 6, x1:x2].mean()))
    assert max(apart) > 40
    assert min(apart) < -10
    assert np.median(apart) > 0


def picture() -> Picture:
    image = np.zeros((64, 64, 3), np.uint8)
    image[8:24, 4:12] = 255
    return Picture(image=image, boxes=np.array([[4, 8, 12, 24]], np.float32), classes=np.array([1]))


def box_of(one: Picture) -> list[float]:
    rows, columns = np.nonzero(one.image[..., 0] > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize(
    "change", [{"fliplr": 1.0}, {"flipud": 1.0}, {"turns": 1.0}, {"fliplr": 1.0, "flipud": 1.0, "turns": 1.0}]
)
def test_boxes_follow_their_pixels_through_flips_and_turns(change: dict):
    made = varied(picture(), replace(STILL, **change), np.random.default_rng(0))
    assert made.boxes[0].tolist() == box_of(made)
    assert made.boxes[0].tolist() != [4, 8, 12, 24]


def test_boxes_follow_their_pixels_through_zoom_shift_and_mosaic():
    made = fitted(picture(), 64, 2.0, (0.25, 0.25))
    assert made.boxes[0] == pytest.approx(box_of(made), abs=1.01)
    whole = joined([picture()] * 4, 64, np.random.default_rng(1))
    assert whole.image.shape == (128, 128, 3)
    for x1, y1, x2, y2 in whole.boxes.astype(int):
        assert (whole.image[y1:y2, x1:x2] == 255).all()


def test_a_box_of_which_too_little_is_left_goes():
    boxes = np.array([[-6, 0, 4, 10], [-9, 0, 1, 10], [60, 60, 70, 70]], np.float32)
    inside, kept = cut(boxes, 64, 64, least=0.35)
    assert kept.tolist() == [True, False, False]
    assert inside[0].tolist() == [0, 0, 4, 10]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thermal") / "set"
    return make_set("thermal-mini", folder, train=6, val=1, size=320)


def test_batches_depend_on_seed_epoch_and_place_alone(scenes: Path):
    samples = read_split(scenes, "train").samples
    settings = replace(STILL, imgsz=128, tile=True, mosaic=0.5, zoom=0.3, epochs=20, seed=4)
    whole = list(Batches(samples, settings).epoch(2))
    used = Batches(samples, settings)
    assert len(list(used.epoch(0))) == len(list(used.epoch(1))) == len(whole) > 3
    for a, b in zip(whole, used.epoch(2), strict=True):
        assert all((a[k] == b[k]).all() for k in a)
    other = next(iter(Batches(samples, settings).epoch(3)))
    assert not (other["img"] == whole[0]["img"]).all()
    assert 0 <= float(whole[0]["bboxes"].min()) <= float(whole[0]["bboxes"].max()) <= 1


def test_tiles_cover_an_image_and_overlap_where_the_side_does_not_divide_it(scenes: Path):
    samples = read_split(scenes, "train").samples
    made = Batches(samples, replace(STILL, imgsz=128, tile=True))
    # 320 x 256 in squares of 128: three columns, two rows.
    corners = [(p.left, p.top) for p in made.places if p.sample == 0]
    assert corners == [(x, y) for y in (0, 128) for x in (0, 96, 192)]
    with pytest.raises(RecipeError, match="smaller than a tile"):
        Batches(samples, replace(STILL, imgsz=512, tile=True))
    with pytest.raises(RecipeError, match="fewer than one batch"):
        Batches(samples[:2], STILL)


def test_precision_and_recall_are_read_where_their_f1_is_highest():
    truth = Truth(
        width=100, height=100, boxes=np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float64),
        classes=np.array([0, 0]), crowd=np.zeros(2, bool),
    )  # fmt: skip
    found = Found(
        boxes=np.array([[0, 0, 10, 10], [80, 80, 90, 90], [50, 50, 60, 60], [20, 80, 30, 90]], np.float32),
        scores=np.array([0.9, 0.7, 0.5, 0.1], np.float32), classes=np.zeros(4, np.int64),
    )  # fmt: skip
    point = operating_point([truth], [found], ["a", "b"])
    # From 0.1 to 0.5: two of three right, both labels found (F1 0.8); above: one of two or of one (0.5, 0.67).
    assert point.precision == pytest.approx(2 / 3)
    assert point.recall == 1
    assert 0.1 < point.score <= 0.5
    assert set(point.by_class) == {"a"}
    never = operating_point([truth], [replace(found, classes=np.ones(4, np.int64))], ["a", "b"])
    assert (never.precision, never.recall) == (0, 0)
