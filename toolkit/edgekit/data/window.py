"""One labelled signal of a generated set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Window:
    """A sensor's signal with its class.

    Attributes:
        signal: Integers: (samples, axes) of a time series, (H, W) of an image.
        label: Index into the set's classes.
    """

    signal: NDArray[Any]
    label: int
