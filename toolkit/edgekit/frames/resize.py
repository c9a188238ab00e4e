"""Resize uint8 images by bilinear interpolation, with cv2 where it is there, else in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import have, need

Image = NDArray[np.uint8]

# cv2 interpolates uint8 with 11-bit weights; with the same ones both agree to one grey level.
_ONE = 1 << 11


def resize(image: Image, width: int, height: int, *, with_cv2: bool | None = None) -> Image:
    """Return `image` (H, W, 3) uint8 at the new size, bilinear, pixel centres at half positions.

    Args:
        image: (H, W, 3) uint8.
        width: New width in pixels.
        height: New height in pixels.
        with_cv2: True and False choose; None takes cv2 where it is installed.
    """
    if image.shape[:2] == (height, width):
        return image
    if have("cv2") if with_cv2 is None else with_cv2:
        cv2 = need("cv2", extra="vision")
        resized: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return resized
    return _resize_numpy(image, width, height)


def _resize_numpy(image: Image, width: int, height: int) -> Image:
    rows, row_next, row_weight = _taps(image.shape[0], height)
    columns, column_next, column_weight = _taps(image.shape[1], width)
    wide = image.astype(np.int32)
    weight = column_weight[None, :, None]
    across = wide[:, columns] * (_ONE - weight) + wide[:, column_next] * weight
    weight = row_weight[:, None, None]
    # 255 * 2048 * 2048 is below 2**31, so int32 holds the sum.
    total: Any = across[rows] * (_ONE - weight) + across[row_next] * weight
    small: Image = np.right_shift(total + (_ONE * _ONE >> 1), 22).astype(np.uint8)
    return small


def _taps(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32]]:
    """Return for each new position its two source positions and the second one's weight of 2048."""
    place = (np.arange(new) + 0.5) * (old / new) - 0.5
    low = np.floor(place).astype(np.intp)
    weight = np.rint((place - low) * _ONE).astype(np.int32)
    weight[(low < 0) | (low >= old - 1)] = 0
    low = np.clip(low, 0, old - 1)
    return low, np.minimum(low + 1, old - 1), weight
