"""One labelled signal or picture of a generated set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Window:
    """A sensor's signal, or a picture, with its class.

    Attributes:
        signal: Integers: (samples, axes) of a time series, (H, W) of a sensor's image, (H, W, 3) uint8 BGR of a picture.
        label: Index into the set's classes.
    """

    signal: NDArray[Any]
    label: int
