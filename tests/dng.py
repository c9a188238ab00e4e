"""Write a small uncompressed DNG, as a camera would: what LibRaw needs to read a Bayer mosaic."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_SHORT, _LONG, _BYTE, _ASCII, _SRATIONAL, _RATIONAL = 3, 4, 1, 2, 10, 5
_SIZES = {_SHORT: 2, _LONG: 4, _BYTE: 1, _ASCII: 1, _SRATIONAL: 8, _RATIONAL: 8}


def _packed(kind: int, values: list) -> bytes:
    if kind in {_BYTE, _ASCII}:
        return bytes(values)
    if kind in {_SRATIONAL, _RATIONAL}:
        return b"".join(struct.pack("<ii", *v) for v in values)
    return struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)


def write_dng(path: Path, mosaic: np.ndarray, *, black: int, white: int, pattern: str = "RGGB") -> Path:
    """Write (H, W) uint16 as a DNG 1.4 (TIFF/EP tags, Adobe DNG specification 1.4)."""
    height, width = mosaic.shape
    data = mosaic.astype("<u2").tobytes()
    one = (1, 1)
    zero = (0, 1)
    tags = [
        (254, _LONG, [0]), (256, _LONG, [width]), (257, _LONG, [height]), (258, _SHORT, [16]), (259, _SHORT, [1]),
        (262, _SHORT, [32803]), (271, _ASCII, list(b"edgekit\0")), (272, _ASCII, list(b"made\0")), (273, _LONG, [0]),
        (277, _SHORT, [1]), (278, _LONG, [height]), (279, _LONG, [len(data)]), (284, _SHORT, [1]),
        (33421, _SHORT, [2, 2]), (33422, _BYTE, ["RGB".index(c) for c in pattern]), (50706, _BYTE, [1, 4, 0, 0]),
        (50708, _ASCII, list(b"edgekit made\0")), (50714, _SHORT, [black]), (50717, _LONG, [white]),
        (50721, _SRATIONAL, [one, zero, zero, zero, one, zero, zero, zero, one]), (50728, _RATIONAL, [one, one, one]),
        (50778, _SHORT, [21]),
    ]  # fmt: skip
    start = 8
    extra_at = start + 2 + 12 * len(tags) + 4
    extra, rows = b"", []
    for tag, kind, values in tags:
        packed = _packed(kind, values)
        count = len(packed) // _SIZES[kind]
        if tag == 273:
            rows.append((tag, kind, count, None))
        elif len(packed) <= 4:
            rows.append((tag, kind, count, packed.ljust(4, b"\0")))
        else:
            rows.append((tag, kind, count, struct.pack("<I", extra_at + len(extra))))
            extra += packed + b"\0" * (len(packed) % 2)
    body = struct.pack("<H", len(rows))
    for tag, kind, count, value in rows:
        body += struct.pack("<HHI", tag, kind, count) + (value or struct.pack("<I", extra_at + len(extra)))
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + body + b"\0\0\0\0" + extra + data)
    return path
