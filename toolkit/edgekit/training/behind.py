"""Put a network behind a sensor's curve for training, and take both apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgekit.codecs.sensor import Sensor
from edgekit.core.errors import RecipeError
from edgekit.data.sample import Sample
from edgekit.frames.raw import planes_of, read_signal
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
    """Return (channels, n) values of the first signals.

    Raises:
        RecipeError: A file holds values that this sensor cannot give.
    """
    found, count = [], 0
    for sample in samples[:_SIGNALS]:
        planes = planes_of(read_signal(sample.path), sensor)
        low, high = int(planes.min()), int(planes.max())
        if low < sensor.lowest or high >= sensor.lowest + sensor.values:
            raise RecipeError(
                f"{sample.path}: values {low} to {high} are not those of a {sensor.bits}-bit sensor",
                hint="Correct `sensor.bits` in the data.yaml, or shift values down that stand at the top of 16 bits.",
            )
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
