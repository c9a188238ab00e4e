"""Read a sensor's own signal from files, and lay it out as the planes that are coded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import have, need

SUFFIXES = frozenset({".npy", ".png", ".tif", ".tiff", ".dng"})
# Where the upper left pixel of each colour lies in the 2 x 2 cell: row, column; red, two greens, blue.
_CELLS = {
    "RGGB": ((0, 0), (0, 1), (1, 0), (1, 1)),
    "BGGR": ((1, 1), (0, 1), (1, 0), (0, 0)),
    "GRBG": ((0, 1), (0, 0), (1, 1), (1, 0)),
    "GBRG": ((1, 0), (0, 0), (1, 1), (0, 1)),
}


def read_signal(path: Path) -> NDArray[Any]:
    """Return the integers of a file as they are stored.

    `.npy` needs no decoder; 16-bit grey `.png` and `.tif` are read by cv2 or Pillow, `.dng` by rawpy.

    Returns:
        (H, W) for one plane or a mosaic, (samples, axes) for a time series.

    Raises:
        RecipeError: The file is missing, damaged, or holds no integers of one plane.
        MissingError: A decoder is not installed.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such file", hint="Check the path.")
    try:
        found = _read(path)
    except (OSError, ValueError, EOFError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})", hint="Replace or remove the file.") from error
    if found is None:
        raise RecipeError(f"{path}: cannot be decoded", hint="Replace or remove the file.")
    if found.ndim != 2 or found.dtype.kind not in "iu" or not found.size:
        raise RecipeError(
            f"{path}: {found.dtype} {found.shape} is no raw signal",
            hint="Give integers: (height, width) of an image, (samples, axes) of a time series.",
        )
    return found


def _read(path: Path) -> NDArray[Any] | None:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        loaded: NDArray[Any] = np.load(path, allow_pickle=False)
        return loaded
    if suffix == ".dng":
        rawpy = need("rawpy", extra="raw", why=f"read {path.name}")
        try:
            with rawpy.imread(str(path)) as opened:
                visible: NDArray[Any] = opened.raw_image_visible.copy()
                return visible
        except rawpy.LibRawError as error:
            raise ValueError(str(error)) from error
    if have("cv2") or not have("PIL"):
        cv2 = need("cv2", extra="vision", why="decode images")
        data = np.fromfile(path, np.uint8)
        image: NDArray[Any] | None = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        return image
    with need("PIL.Image").open(path) as opened:
        return np.asarray(opened)


def sensor_planes(path: Path, sensor: Sensor) -> NDArray[Any]:
    """Return the planes of a file, uint16 or int16, whose values are all ones that the sensor can give.

    Raises:
        RecipeError: The file is damaged, of another layout, or holds other values.
        MissingError: A decoder is not installed.
    """
    try:
        planes = planes_of(read_signal(path), sensor)
    except RecipeError as error:
        raise RecipeError(
            f"{path}: {error.message.removeprefix(f'{path}: ').removeprefix('frame: ')}", hint=error.hint
        ) from error
    low, high = int(planes.min()), int(planes.max())
    if low < sensor.lowest or high >= sensor.lowest + sensor.values:
        raise RecipeError(
            f"{path}: values {low} to {high} are not those of a {sensor.bits}-bit sensor",
            hint="Correct `sensor.bits` in the data.yaml, or shift values down that stand at the top of 16 bits.",
        )
    found: NDArray[Any] = planes.astype(np.int16 if sensor.signed else np.uint16)
    return found


def planes_of(signal: NDArray[Any], sensor: Sensor) -> NDArray[Any]:
    """Return a signal as (channels, height, width): red, green, green, blue of a mosaic, at half its size.

    Args:
        signal: (H, W) of an image, (samples, axes) of a time series: its planes are (axes, 1, samples).
        sensor: What made it.

    Raises:
        RecipeError: It has another layout than the sensor.
    """
    if not isinstance(signal, np.ndarray) or signal.ndim != 2 or signal.dtype.kind not in "iu":
        found = f"{signal.dtype} {signal.shape}" if isinstance(signal, np.ndarray) else type(signal).__name__
        raise RecipeError(
            f"frame: {found} is no raw signal",
            hint="Give integers: (height, width) of an image, (samples, axes) of a time series.",
        )
    if sensor.axes:
        if signal.shape[1] != len(sensor.axes):
            raise RecipeError(
                f"frame: {signal.shape[1]} columns, the sensor has {len(sensor.axes)} axes ({', '.join(sensor.axes)})",
                hint="Give (samples, axes).",
            )
        return np.ascontiguousarray(signal.T)[:, None]
    if not sensor.mosaic:
        return signal[None]
    if signal.shape[0] % 2 or signal.shape[1] % 2:
        raise RecipeError(
            f"frame: {signal.shape[0]} x {signal.shape[1]} is no mosaic of 2 x 2 cells",
            hint="Crop it to even sides.",
        )
    return np.stack([signal[r::2, c::2] for r, c in _CELLS[sensor.mosaic]])


def fitted_planes(
    planes: NDArray[Any], size: tuple[int, int], fill: int
) -> tuple[NDArray[Any], float, int, int]:
    """Return planes at another size by taking the nearest values (none is mixed), aspect kept, in the middle.

    Args:
        planes: (C, h, w).
        size: Height and width wanted.
        fill: Value around them.

    Returns:
        The planes, the scale, and where they begin: left, top.
    """
    h, w = planes.shape[1:]
    if (h, w) == size:
        return planes, 1.0, 0, 0
    scale = min(size[0] / h, size[1] / w)
    inner = max(round(h * scale), 1), max(round(w * scale), 1)
    rows = np.minimum(((np.arange(inner[0]) + 0.5) / scale).astype(int), h - 1)
    columns = np.minimum(((np.arange(inner[1]) + 0.5) / scale).astype(int), w - 1)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = np.full((planes.shape[0], *size), fill, planes.dtype)
    canvas[:, top : top + inner[0], left : left + inner[1]] = planes[:, rows][:, :, columns]
    return canvas, scale, left, top
