"""Turn a sensor's signal into the bytes that a model takes, and remember where it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor
from edgekit.codecs.sensor_table import table_of
from edgekit.core.plugins import pick
from edgekit.core.records import Coding, Frames
from edgekit.frames.images import read_image
from edgekit.frames.place import Placement
from edgekit.frames.raw import fitted_planes, planes_of, read_signal


def read_frame(path: Path, spec: Frames | None) -> NDArray[Any]:
    """Return what a model with that pre-processing takes: a BGR image, or a sensor's own signal.

    Raises:
        RecipeError: The file is missing or damaged.
        MissingError: A decoder is not installed.
    """
    return read_signal(path) if spec and spec.coding else read_image(path)


def coded(frame: NDArray[Any], coding: Coding) -> tuple[NDArray[np.uint8], Placement]:
    """Return the coded tensor of a signal, or of what is coded already, and where it stands.

    Args:
        frame: A sensor's signal, as `planes_of` takes it; or its codes, uint8 of the coded tensor's shape.
        coding: How it is coded.

    Raises:
        RecipeError: It is neither.
    """
    codec = pick("codecs", coding.codec, what="codec")
    table = table_of(coding.settings)
    if (
        isinstance(frame, np.ndarray)
        and frame.dtype == np.uint8
        and frame.shape == codec.shape(coding.settings)
    ):
        return frame, place_of(table.sensor, (table.height, table.width))
    planes = planes_of(frame, table.sensor)
    size = (table.height, table.width)
    if table.sensor.axes:
        # A time series is never stretched: the codec refuses one of another length.
        return codec.encode(planes, coding.settings), place_of(table.sensor, size)
    fit, scale, left, top = fitted_planes(planes, size, table.sensor.black)
    return codec.encode(fit, coding.settings), place_of(table.sensor, planes.shape[1:], scale, left, top)


def place_of(
    sensor: Sensor, shape: tuple[int, ...], scale: float = 1.0, left: int = 0, top: int = 0
) -> Placement:
    """Return where a signal's own pixels stand in the network's planes."""
    cell = 2 if sensor.mosaic else 1
    return Placement(
        scale_x=scale / cell,
        scale_y=scale / cell,
        left=left,
        top=top,
        width=shape[1] * cell,
        height=shape[0] * cell,
    )
