"""What every codec can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Codec(Protocol):
    """Turns a signal into bytes on the device, and bytes into values where the network runs.

    `settings` is what a bundle's contract says of it, as JSON; light, numpy alone.
    """

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings that are damaged.

        Raises:
            RecipeError: They do not describe a codec.
        """

    def shape(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the shape of the coded tensor, batch first."""

    def encode(self, signal: NDArray[Any], settings: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Return the bytes (`shape`) of one signal (channels, height, width) of the sensor's values.

        Raises:
            RecipeError: It is not what the sensor gives.
        """

    def decode(self, data: NDArray[np.uint8], settings: Mapping[str, Any]) -> NDArray[np.float32]:
        """Return what the network behind sees of coded bytes.

        (1, C, H, W) of an image, its greens averaged behind a mosaic; (1, axes, samples) of a time series.
        """

    def sizes(self, settings: Mapping[str, Any]) -> tuple[int, int]:
        """Return bytes a frame on the link, and what the same frame takes in the sensor's own bits."""

    def files(self, settings: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return the files of both halves by path: `device/…` encodes, `server/…` decodes."""
