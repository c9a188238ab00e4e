"""Make the batches of a training run: each depends on seed, epoch and place alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.data.sample import Sample
from edgekit.frames.images import read_image
from edgekit.training.augment import Picture, cut, fitted, joined, varied
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

    Raises:
        RecipeError: There are fewer images than a batch holds, or one cannot be read.
    """

    def __init__(self, samples: Sequence[Sample], settings: TrainPart) -> None:
        self.samples, self.settings = samples, settings
        self.places = self._tiles() if settings.tile else [_Place(k) for k in range(len(samples))]
        if settings.limit:
            self.places = self.places[: settings.limit]
        self.per_epoch = len(self.places) // settings.batch
        if not self.per_epoch:
            raise RecipeError(
                f"train: {len(self.places)} training images are fewer than one batch of {settings.batch}",
                hint="Lower train.batch or give more images.",
            )
        self._kept: dict[int, np.ndarray] = {}
        self._room = _MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

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
        """Return images (B, 3, S, S) uint8 RGB and boxes as ultralytics' losses take them."""
        size, side = self.settings.batch, self.settings.imgsz
        images, index, classes, boxes = [], [], [], []
        for k, chosen in enumerate(order[place * size : (place + 1) * size]):
            one = self._made(int(chosen), epoch)
            images.append(one.image.transpose(2, 0, 1))
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
            one = joined([one, *others], side, rng)
        return varied(fitted(one, side, zoom, (shift[0], shift[1])), settings, rng)

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
            found = self._scaled(read_image(self.samples[sample].path))
            if found.nbytes < self._room:
                self._kept[sample] = found
                self._room -= found.nbytes
        return found

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
        pillow = need("PIL.Image", extra="train")
        found = []
        for k, sample in enumerate(self.samples):
            try:
                with pillow.open(sample.path) as opened:
                    width, height = opened.size
            except OSError as error:
                raise RecipeError(
                    f"{sample.path}: cannot be read ({error})", hint="Replace or remove it."
                ) from error
            if min(width, height) < side:
                raise RecipeError(
                    f"{sample.path}: {width} x {height} is smaller than a tile of {side}",
                    hint="Lower train.imgsz or leave out train.tile.",
                )
            found += [_Place(k, left, top) for top in _starts(height, side) for left in _starts(width, side)]
        return found


def _starts(length: int, side: int) -> list[int]:
    count = -(-length // side)
    return [round(k * (length - side) / max(count - 1, 1)) for k in range(count)]
