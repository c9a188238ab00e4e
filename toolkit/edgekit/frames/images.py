"""Read images from files as BGR arrays, and write RGB ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import RecipeError
from edgekit.core.files import resource_errors, write_bytes
from edgekit.core.lazy import have, need
from edgekit.frames.resize import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".npy"})


def read_image(path: Path) -> Image:
    """Return the image at `path` as (H, W, 3) uint8, BGR; `.npy` files need no decoder.

    Raises:
        RecipeError: The file is missing, truncated or no image.
        MissingError: A decoder is needed and neither cv2 nor Pillow is installed.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such image", hint="Check the path.")
    if path.suffix == ".npy":
        loaded: Image = np.load(path, allow_pickle=False)
        return loaded
    data = path.read_bytes()
    _refuse_truncated(path, data)
    image = _decode(data)
    if image is None:
        raise RecipeError(f"{path}: cannot be decoded as an image", hint="Replace or remove the file.")
    return image


def _refuse_truncated(path: Path, data: bytes) -> None:
    # Decoders fill the missing part of a cut JPEG with grey and report nothing.
    cut_jpeg = data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-1024:]
    cut_png = data[:4] == b"\x89PNG" and b"IEND" not in data[-64:]
    if not data or cut_jpeg or cut_png:
        raise RecipeError(
            f"{path}: truncated image, {len(data)} bytes without an end mark",
            hint="Copy the file again or remove it from the data.",
        )


def _decode(data: bytes) -> Image | None:
    if have("cv2") or not have("PIL"):
        cv2 = need("cv2", extra="vision", why="decode images")
        found: Image | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return found
    import io

    pil = need("PIL.Image")
    try:
        with pil.open(io.BytesIO(data)) as opened:
            rgb = np.asarray(opened.convert("RGB"))
    except (OSError, ValueError):
        return None
    return np.ascontiguousarray(rgb[..., ::-1])


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB picture (H, W, 3) as PNG (ISO/IEC 15948), with the standard library alone.

    Raises:
        ResourceError: The disk is full or may not be written.
    """
    height, width = image.shape[:2]
    # Every row begins with the number of its filter: 0, none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, width * 3)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    with resource_errors(path):
        write_bytes(
            path,
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", head)
            + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
            + chunk(b"IEND", b""),
        )
