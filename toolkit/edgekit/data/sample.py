"""One labelled image, and a split of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its labels.

    Attributes:
        path: The image.
        boxes: (N, 4) float64, centre x, centre y, width, height as shares of the image.
        classes: (N,) int64.
        crowd: (N,) bool, COCO's crowd regions; none in YOLO layout.
    """

    path: Path
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split: its samples in a fixed order, and the class names."""

    samples: tuple[Sample, ...]
    names: tuple[str, ...]
