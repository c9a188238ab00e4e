"""Put codes of 1 to 16 bits into bytes, and take them out again.

The first code lies in the lowest bits of the first byte; codes follow each other without gaps, and each row begins
with a byte of its own. Two 4-bit codes so share a byte, the first one in its low half.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def packed_width(width: int, bits: int) -> int:
    """Return the bytes that a row of `width` codes takes."""
    return -(-width * bits // 8)


def group_of(bits: int) -> tuple[int, int]:
    """Return the smallest (codes, bytes) that end together: (2, 1) at 4 bits, (8, 3) at 3 bits."""
    whole = math.lcm(bits, 8)
    return whole // bits, whole // 8


def pack(codes: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Return codes (..., W) as bytes (..., ceil(W * bits / 8)); what a row's last byte has left is zero."""
    width = codes.shape[-1]
    if bits == 8:
        return codes.astype(np.uint8)
    if bits in {1, 2, 4}:
        return _pack_even(codes, bits)
    spread = (codes[..., None].astype(np.uint16) >> np.arange(bits, dtype=np.uint16)) & 1
    flat = spread.reshape(*codes.shape[:-1], width * bits).astype(np.uint8)
    packed: NDArray[np.uint8] = np.packbits(flat, axis=-1, bitorder="little")
    return packed


def _pack_even(codes: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Return the same for widths that divide a byte, several times as fast."""
    share, width = 8 // bits, codes.shape[-1]
    if width % share:
        room = [(0, 0)] * (codes.ndim - 1) + [(0, share - width % share)]
        codes = np.pad(codes, room)
    parts = codes.astype(np.uint8, copy=False)
    done = parts[..., ::share].copy()
    for k in range(1, share):
        done |= parts[..., k::share] << np.uint8(k * bits)
    return done


def unpack(data: NDArray[np.uint8], bits: int, width: int) -> NDArray[np.uint16]:
    """Return the codes (..., width) that `pack` put into `data`."""
    flat = np.unpackbits(data, axis=-1, bitorder="little")[..., : width * bits]
    spread = flat.reshape(*data.shape[:-1], width, bits).astype(np.uint16)
    weights = (1 << np.arange(bits)).astype(np.uint16)
    codes: NDArray[np.uint16] = (spread * weights).sum(-1, dtype=np.uint16)
    return codes
