"""One labelled image, and a split of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its labels.

    Attributes:
        path: The image, or the signal.
        boxes: (N, 4) float64, centre x, centre y, width, height as shares of the image; (0, 4) where the whole sample
            has one class.
        classes: (N,) int64.
        crowd: (N,) bool, COCO's crowd regions; none in YOLO layout.
    """

    path: Path
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split.

    Attributes:
        samples: In a fixed order.
        names: Of the classes.
        sensor: What recorded them, where the files hold a sensor's own values.
        task: detect (boxes), or classify (one class a sample).
    """

    samples: tuple[Sample, ...]
    names: tuple[str, ...]
    sensor: Sensor | None = None
    task: str = "detect"
