"""Put a network behind a sensor's curve for training, and take both apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgekit.codecs.sensor import Sensor
from edgekit.data.sample import Sample
from edgekit.frames.raw import sensor_planes
from edgekit.training.curve import Curve, Sensed

# Signals that the curve starts from; of images fewer, each has a hundred thousand values.
_SIGNALS, _VALUES = 256, 4_000_000


def behind(settings: Any, sensor: Sensor, samples: Sequence[Sample], net: Any) -> Sensed:
    """Return `net` behind the curve that a recipe's gamma-quant asks for, started from training signals.

    Raises:
        RecipeError: The signals are constant, saturated, or not this sensor's.
    """
    front = Curve(
        sensor, bits=settings.bits, curve=settings.curve, mode=settings.mode, per=settings.per,
        samples=starts(samples, sensor),
    )  # fmt: skip
    return Sensed(front, net)


def starts(samples: Sequence[Sample], sensor: Sensor) -> NDArray[np.integer]:
    """Return (channels, n) values of signals that are spread over the split.

    Raises:
        RecipeError: A file holds values that this sensor cannot give.
    """
    # Spread over the split: a recording's first windows are one person's, in one posture.
    chosen = np.linspace(0, len(samples) - 1, min(len(samples), _SIGNALS)).astype(int)
    found, count = [], 0
    for k in np.random.default_rng(0).permutation(chosen):
        planes = sensor_planes(samples[int(k)].path, sensor)
        found.append(planes.reshape(len(planes), -1))
        count += planes.size
        if count > _VALUES:
            break
    return np.concatenate(found, 1)


def coded(model: Sensed, weights: Mapping[str, Tensor], side: int) -> dict[str, Any]:
    """Return the settings of the codec that the best epoch's curve became.

    Args:
        model: As it was trained.
        weights: Of the best epoch, the curve's among them.
        side: Of square planes in pixels; the pass gives a table the size of its network.
    """
    model.load_state_dict(dict(weights))
    return model.front.coded(side, side).settings()


def unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's own weights of a `Sensed` module."""
    return {k.removeprefix("net."): v for k, v in weights.items() if k.startswith("net.")}
