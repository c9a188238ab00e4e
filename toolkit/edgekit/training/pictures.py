"""Make the batches of a training on images with one class each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.core.errors import RecipeError
from edgekit.core.records import Frames
from edgekit.data.sample import Sample
from edgekit.frames.images import read_image
from edgekit.frames.prepare import prepare
from edgekit.training.settings import TrainPart


class Pictures:
    """The training images of a split, all in memory, shuffled, moved and mirrored by seed and epoch.

    Args:
        images: (N, 3, H, W) uint8, as `pictures_of` gives them.
        classes: (N,) int64.
        settings: Of the training; of its augmentation `shift` and `fliplr` count.

    Raises:
        RecipeError: There are fewer images than a batch holds.
    """

    def __init__(self, images: NDArray[np.uint8], classes: NDArray[np.int64], settings: TrainPart) -> None:
        limit = settings.limit or len(images)
        self.settings = settings
        self._images, self._classes = torch.from_numpy(images[:limit]), torch.from_numpy(classes[:limit])
        self.places = range(len(self._images))
        self.shape = tuple(self._images.shape[1:])
        self.per_epoch = len(self._images) // settings.batch
        if not self.per_epoch:
            raise RecipeError(
                f"train: {len(self._images)} training images are fewer than one batch of {settings.batch}",
                hint="Lower train.batch or give more images.",
            )

    def epoch(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Give the batches of one epoch: `img` (B, 3, H, W) uint8, `cls` (B,) int64."""
        rng = np.random.default_rng([self.settings.seed, 7, number])
        order, size = rng.permutation(len(self._images)), self.settings.batch
        for place in range(self.per_epoch):
            chosen = torch.from_numpy(order[place * size : (place + 1) * size])
            yield {"img": self._varied(self._images[chosen], rng), "cls": self._classes[chosen]}

    def _varied(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Return images mirrored and moved, each by its own draw; what moves in from outside is the edge's colour."""
        side = self.shape[-1]
        reach = round(self.settings.shift * side)
        flips = torch.from_numpy(rng.random(len(images)) < self.settings.fliplr)
        images = torch.where(flips[:, None, None, None], images.flip(3), images)
        if not reach:
            return images
        wide = torch.nn.functional.pad(images.float(), [reach] * 4, mode="replicate").to(torch.uint8)
        moves = rng.integers(0, 2 * reach + 1, (len(images), 2))
        height, width = self.shape[1:]
        return torch.stack(
            [p[:, y : y + height, x : x + width] for p, (y, x) in zip(wide, moves, strict=True)]
        )


def pictures_of(
    samples: Sequence[Sample], frames: Frames, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (N, 3, H, W) as the runtime would prepare them, before scaling, and classes (N,)."""
    plain = Frames(resize=frames.resize, pad=frames.pad, color=frames.color, scale=1.0)
    rows = [prepare(read_image(s.path), plain, size)[0][0] for s in samples]
    classes = np.array([int(s.classes[0]) for s in samples], np.int64)
    return np.rint(np.stack(rows)).astype(np.uint8), classes
