"""Make the batches of a training run: each depends on seed, epoch and place alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgekit.codecs.sensor import Sensor
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.data.sample import Sample
from edgekit.frames.images import read_image
from edgekit.frames.raw import fitted_planes, sensor_planes
from edgekit.training.augment import GREY, Picture, cut, fitted, joined, varied
from edgekit.training.settings import TrainPart

_HALF_VISIBLE = 0.5
# Decoded images are kept while they fit in this share of the machine's memory.
_MEMORY_SHARE = 0.4


@dataclass(frozen=True)
class _Place:
    """One training image: a whole sample, or a tile of one."""

    sample: int
    left: int = 0
    top: int = 0


class Batches:
    """The training images of a split, shuffled, augmented and stacked.

    Args:
        samples: Labelled images.
        settings: Of the training.
        sensor: What recorded them, where the files hold a sensor's own values.

    Raises:
        RecipeError: There are fewer images than a batch holds, or one cannot be read.
    """

    def __init__(
        self, samples: Sequence[Sample], settings: TrainPart, *, sensor: Sensor | None = None
    ) -> None:
        self.samples, self.settings, self.sensor = samples, settings, sensor
        self._fill = sensor.black if sensor else GREY
        self._kept: dict[int, np.ndarray] = {}
        self._room = _MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.places = self._tiles() if settings.tile else [_Place(k) for k in range(len(samples))]
        if settings.limit:
            self.places = self.places[: settings.limit]
        self.per_epoch = len(self.places) // settings.batch
        if not self.per_epoch:
            raise RecipeError(
                f"train: {len(self.places)} training images are fewer than one batch of {settings.batch}",
                hint="Lower train.batch or give more images.",
            )

    def epoch(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Give the batches of one epoch, the next one made while the caller works on this one."""
        order = np.random.default_rng([self.settings.seed, 7, number]).permutation(len(self.places))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self._batch, order, number, 0)
            for place in range(self.per_epoch):
                made = waiting.result()
                if place + 1 < self.per_epoch:
                    waiting = pool.submit(self._batch, order, number, place + 1)
                yield made

    def _batch(self, order: np.ndarray, epoch: int, place: int) -> dict[str, Tensor]:
        """Return images (B, 3, S, S) uint8 RGB, or planes (B, C, S, S) int32, and boxes as ultralytics' losses take them."""
        size, side = self.settings.batch, self.settings.imgsz
        images, index, classes, boxes = [], [], [], []
        for k, chosen in enumerate(order[place * size : (place + 1) * size]):
            one = self._made(int(chosen), epoch)
            plane = one.image.astype(np.int32) if self.sensor else one.image
            images.append(plane.transpose(2, 0, 1))
            index.append(np.full(len(one.classes), k, np.float32))
            classes.append(one.classes.astype(np.float32))
            middle, sides = (one.boxes[:, :2] + one.boxes[:, 2:]) / 2, one.boxes[:, 2:] - one.boxes[:, :2]
            boxes.append(np.hstack([middle, sides]).astype(np.float32) / side)
        return {
            "img": torch.from_numpy(np.stack(images)),
            "batch_idx": torch.from_numpy(np.concatenate(index)),
            "cls": torch.from_numpy(np.concatenate(classes))[:, None],
            "bboxes": torch.from_numpy(np.concatenate(boxes)).reshape(-1, 4),
        }

    def _made(self, chosen: int, epoch: int) -> Picture:
        settings, side = self.settings, self.settings.imgsz
        rng = np.random.default_rng([settings.seed, 11, epoch, chosen])
        zoom = 1 + float(rng.uniform(-1, 1)) * settings.zoom
        shift = tuple(float(v) * settings.shift for v in rng.uniform(-1, 1, 2))
        with_mosaic = rng.uniform() < settings.mosaic and epoch < settings.epochs - settings.close_mosaic
        one = self._picture(chosen)
        if with_mosaic:
            others = [self._picture(int(k)) for k in rng.integers(0, len(self.places), 3)]
            one = joined([one, *others], side, rng, fill=self._fill)
        one = fitted(one, side, zoom, (shift[0], shift[1]), fill=self._fill, nearest=self.sensor is not None)
        return varied(one, settings, rng, sensor=self.sensor)

    def _picture(self, chosen: int) -> Picture:
        """Return one training image as it is: scaled to the longer side, or a tile as large as it."""
        place, side = self.places[chosen], self.settings.imgsz
        sample = self.samples[place.sample]
        image = self._image(place.sample)
        height, width = image.shape[:2]
        spans = np.array([width, height] * 2, np.float32)
        centre, half = sample.boxes[:, :2], sample.boxes[:, 2:] / 2
        boxes = np.hstack([centre - half, centre + half]).astype(np.float32) * spans
        labelled = ~sample.crowd
        boxes, classes = boxes[labelled], sample.classes[labelled]
        if not self.settings.tile:
            return Picture(image=image, boxes=boxes, classes=classes)
        image = image[place.top : place.top + side, place.left : place.left + side]
        boxes, kept = cut(
            boxes - np.array([place.left, place.top] * 2, np.float32), side, side, least=_HALF_VISIBLE
        )
        return Picture(image=image, boxes=boxes[kept], classes=classes[kept])

    def _image(self, sample: int) -> np.ndarray:
        found = self._kept.get(sample)
        if found is None:
            found = self._read(self.samples[sample].path)
            if found.nbytes < self._room:
                self._kept[sample] = found
                self._room -= found.nbytes
        return found

    def _read(self, path: Path) -> np.ndarray:
        if not self.sensor:
            return self._scaled(read_image(path))
        planes = sensor_planes(path, self.sensor)
        height, width = planes.shape[1:]
        side = self.settings.imgsz
        scale = 1.0 if self.settings.tile else side / max(height, width)
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        return np.ascontiguousarray(fitted_planes(planes, size, self._fill)[0].transpose(1, 2, 0))

    def _scaled(self, image: np.ndarray) -> np.ndarray:
        cv2 = need("cv2", extra="train")
        height, width = image.shape[:2]
        factor = self.settings.imgsz / max(height, width)
        if not self.settings.tile and factor != 1:
            size = (max(round(width * factor), 1), max(round(height * factor), 1))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        return np.ascontiguousarray(image[..., ::-1])

    def _tiles(self) -> list[_Place]:
        """Return tiles that cover every image; where the side does not divide it, they overlap."""
        side = self.settings.imgsz
        found = []
        for k, sample in enumerate(self.samples):
            width, height = self._size(k)
            if min(width, height) < side:
                raise RecipeError(
                    f"{sample.path}: {width} x {height} is smaller than a tile of {side}",
                    hint="Lower train.imgsz or leave out train.tile.",
                )
            found += [_Place(k, left, top) for top in _starts(height, side) for left in _starts(width, side)]
        return found

    def _size(self, sample: int) -> tuple[int, int]:
        """Return width and height of what a sample becomes; an image is not decoded for it, raw planes are kept."""
        if self.sensor:
            height, width = self._image(sample).shape[:2]
            return width, height
        path = self.samples[sample].path
        pillow = need("PIL.Image", extra="train")
        try:
            with pillow.open(path) as opened:
                size: tuple[int, int] = opened.size
                return size
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error})", hint="Replace or remove it.") from error


def _starts(length: int, side: int) -> list[int]:
    count = -(-length // side)
    return [round(k * (length - side) / max(count - 1, 1)) for k in range(count)]
