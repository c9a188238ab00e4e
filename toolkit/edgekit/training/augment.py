"""Change a training image and its boxes: place, join, flip, turn, colour; seeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor
from edgekit.core.lazy import need
from edgekit.training.settings import TrainPart

GREY = 114
# Boxes of which less than this share is left inside are dropped; so are those under two pixels.
_VISIBLE, _SMALLEST = 0.35, 2.0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image with its labels.

    Attributes:
        image: (H, W, 3) uint8, RGB; or (H, W, C) integers of a sensor, its planes last.
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels.
        classes: (N,) int64.
    """

    image: NDArray[Any]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


def cut(
    boxes: NDArray[np.float32], width: int, height: int, *, least: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return boxes cut at the edges of an image, and which of them are still there.

    Args:
        boxes: (N, 4) x1 y1 x2 y2.
        width: Of the image.
        height: Of the image.
        least: Share of a box's area that must be inside.
    """
    inside = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    sides, whole = inside[:, 2:] - inside[:, :2], boxes[:, 2:] - boxes[:, :2]
    area, before = sides.prod(1), np.maximum(whole.prod(1), 1e-6)
    return inside, (area >= least * before) & (sides.min(1, initial=np.inf) >= _SMALLEST)


def joined(four: list[Picture], side: int, rng: np.random.Generator, *, fill: int = GREY) -> Picture:
    """Return four pictures around a random middle of a canvas of twice the side (mosaic)."""
    canvas = np.full((2 * side, 2 * side, four[0].image.shape[2]), fill, four[0].image.dtype)
    middle = rng.uniform(0.5 * side, 1.5 * side, 2).astype(int)
    boxes, classes = [], []
    for k, one in enumerate(four):
        height, width = one.image.shape[:2]
        left = int(middle[0]) - (width if k % 2 == 0 else 0)
        top = int(middle[1]) - (height if k < 2 else 0)
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(left + width, 2 * side), min(top + height, 2 * side)
        if x2 > x1 and y2 > y1:
            canvas[y1:y2, x1:x2] = one.image[y1 - top : y2 - top, x1 - left : x2 - left]
        boxes.append(one.boxes + np.array([left, top] * 2, np.float32))
        classes.append(one.classes)
    placed, kept = cut(np.concatenate(boxes), 2 * side, 2 * side, least=_VISIBLE)
    return Picture(image=canvas, boxes=placed[kept], classes=np.concatenate(classes)[kept])


def fitted(
    one: Picture,
    side: int,
    zoom: float,
    shift: tuple[float, float],
    *,
    fill: int = GREY,
    nearest: bool = False,
) -> Picture:
    """Return a square picture of `side`: the middle of `one`, zoomed and shifted (shares of the side).

    Args:
        one: The picture.
        side: In pixels.
        zoom: Factor.
        shift: Across and down.
        fill: Value around it.
        nearest: Take the nearest values instead of mixing: a sensor's noise must stay as it is.
    """
    cv2 = need("cv2", extra="train")
    height, width = one.image.shape[:2]
    if (height, width) == (side, side) and zoom == 1.0 and shift == (0.0, 0.0):
        return one
    move = np.array(
        [
            [zoom, 0, side * (0.5 + shift[0]) - zoom * width / 2],
            [0, zoom, side * (0.5 + shift[1]) - zoom * height / 2],
        ],
        np.float32,
    )
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    image = cv2.warpAffine(one.image, move, (side, side), flags=how, borderValue=(fill,) * one.image.shape[2])
    image = image.reshape(side, side, -1)
    moved = one.boxes * zoom + np.tile(move[:, 2], 2)
    boxes, kept = cut(moved, side, side, least=_VISIBLE)
    return Picture(image=image, boxes=boxes[kept], classes=one.classes[kept])


def varied(
    one: Picture, settings: TrainPart, rng: np.random.Generator, *, sensor: Sensor | None = None
) -> Picture:
    """Return a square picture flipped, turned and coloured as the settings allow.

    Of a sensor's values, brightness changes by light before the sensor codes it, and colours stay.
    """
    image, boxes, side = one.image, one.boxes, one.image.shape[0]
    # Every draw happens whatever the settings are, so that one setting does not move the others.
    flip_x, flip_y, turn = rng.uniform(size=3)
    if flip_x < settings.fliplr:
        image, boxes = image[:, ::-1], _mirrored(boxes, side, 0)
    if flip_y < settings.flipud:
        image, boxes = image[::-1], _mirrored(boxes, side, 1)
    if turn < settings.turns:
        image, boxes = image.transpose(1, 0, 2), boxes[:, [1, 0, 3, 2]]
    image = np.ascontiguousarray(image)
    image = _lit(image, settings, rng, sensor) if sensor else _coloured(image, settings, rng)
    return Picture(image=image, boxes=boxes, classes=one.classes)


def _lit(image: NDArray[Any], settings: TrainPart, rng: np.random.Generator, sensor: Sensor) -> NDArray[Any]:
    """Return a sensor's values under a share more or less light."""
    gain = 1 + rng.uniform(-1, 1) * settings.value
    if gain == 1:
        return image
    lit = (image.astype(np.float32) - sensor.black) * np.float32(gain) + sensor.black
    found: NDArray[Any] = np.clip(np.rint(lit), 0, sensor.full).astype(image.dtype)
    return found


def _mirrored(boxes: NDArray[np.float32], side: int, axis: int) -> NDArray[np.float32]:
    found = boxes.copy()
    found[:, axis], found[:, axis + 2] = side - boxes[:, axis + 2], side - boxes[:, axis]
    return found


def _coloured(image: NDArray[np.uint8], settings: TrainPart, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the image with hue, saturation and brightness changed by random factors."""
    by = np.array([settings.hue, settings.saturation, settings.value])
    gain = 1 + rng.uniform(-1, 1, 3) * by
    if not by.any():
        return image
    cv2 = need("cv2", extra="train")
    levels = np.arange(256, dtype=np.float64)
    tables = np.stack([(levels * gain[0]) % 180, levels * gain[1], levels * gain[2]], 1)
    table = np.clip(tables, 0, 255).astype(np.uint8)[None]
    found: NDArray[np.uint8] = cv2.cvtColor(
        cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB
    )
    return found
