"""Make the batches of a training on signals with one class each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.codecs.sensor import Sensor
from edgekit.core.errors import RecipeError
from edgekit.data.sample import Sample
from edgekit.frames.raw import sensor_planes
from edgekit.training.settings import TrainPart


class Windows:
    """The training signals of a split, all in memory, shuffled by seed and epoch.

    Args:
        samples: Signals of one shape.
        settings: Of the training; its augmentation is for images and changes nothing here.
        sensor: What recorded them.

    Attributes:
        shape: Of one signal as the network sees it.

    Raises:
        RecipeError: There are fewer signals than a batch holds, or their shapes differ.
    """

    def __init__(self, samples: Sequence[Sample], settings: TrainPart, sensor: Sensor) -> None:
        self.places = list(samples[: settings.limit] if settings.limit else samples)
        self.settings = settings
        self.per_epoch = len(self.places) // settings.batch
        if not self.per_epoch:
            raise RecipeError(
                f"train: {len(self.places)} training signals are fewer than one batch of {settings.batch}",
                hint="Lower train.batch or give more signals.",
            )
        self._signals = torch.from_numpy(signals_of([s.path for s in self.places], sensor))
        own = tuple(self._signals.shape[1:])
        # The greens of a mosaic are one plane behind the curve.
        self.shape: tuple[int, ...] = (3, *own[1:]) if sensor.mosaic else own
        self._classes = torch.tensor([int(s.classes[0]) for s in self.places])

    def epoch(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Give the batches of one epoch: signals int32 as `signals_of` gives them, classes int64."""
        order = np.random.default_rng([self.settings.seed, 7, number]).permutation(len(self.places))
        size = self.settings.batch
        for place in range(self.per_epoch):
            chosen = torch.from_numpy(order[place * size : (place + 1) * size])
            yield {"img": self._signals[chosen], "cls": self._classes[chosen]}


def signals_of(paths: Sequence[Path], sensor: Sensor) -> NDArray[np.int32]:
    """Return signals as a network takes them: (N, axes, samples) of a time series, (N, C, H, W) of images.

    Raises:
        RecipeError: A file is no signal of this sensor, or their shapes differ.
    """
    found = []
    for path in paths:
        planes = sensor_planes(path, sensor)
        found.append(planes[:, 0] if sensor.axes else planes)
        if found[-1].shape != found[0].shape:
            raise RecipeError(
                f"{path}: shape {found[-1].shape}, that of the first one is {found[0].shape}",
                hint="Cut all signals to one length.",
            )
    return np.stack(found).astype(np.int32)
