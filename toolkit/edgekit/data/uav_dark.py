"""Draw the scenes of uav-mini as a 12-bit colour sensor sees them at night: dark, with bright lamps, noisy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor
from edgekit.data import uav_mini
from edgekit.data.uav_mini import Scene

CLASSES = uav_mini.CLASSES
BLACK = 64
SENSOR = Sensor(bits=12, black=BLACK, mosaic="RGGB")
# What a white surface gives above black, in sensor values: 80 is a moonlit yard, 1500 a lit street. One step of a
# linear 4-bit code is 269 values.
_WHITE = (80.0, 1500.0)
# One electron a value: shot noise is the square root of the signal. Read noise as phone sensors have it.
_READ_NOISE = 1.5
# A colour sensor sees less red and blue than green.
_COLOURS = {"R": 0.55, "G": 1.0, "B": 0.65}
_LAMPS = (1, 4)


def draw_scene(*, seed: int, split: str, index: int, size: int = 640) -> Scene:
    """Return scene `index` of `split` as raw values: the same arguments give the same ones.

    Args:
        seed: The data set's seed.
        split: "train" or "val".
        index: The scene's number in its split.
        size: Side of the sensor in pixels; the scene has half of it, each of its pixels one 2 x 2 cell.

    Returns:
        A scene whose image is (size, size) uint16, an RGGB mosaic; boxes in pixels of it.
    """
    day = uav_mini.draw_scene(seed=seed, split=split, index=index, size=size // 2)
    rng = np.random.default_rng([seed, {"train": 3, "val": 4}[split], index])
    linear = _linear(day.image)
    light = _light(rng, size // 2)
    white = float(np.exp(rng.uniform(*np.log(_WHITE))))
    return Scene(
        image=_sensed(rng, linear * light[..., None], white), boxes=day.boxes * 2, classes=day.classes
    )


def _linear(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return (H, W, 3) BGR reflectance, 0 to 1 (the sRGB curve undone, IEC 61966-2-1)."""
    v = image.astype(np.float64) / 255
    bent: NDArray[np.float64] = ((v + 0.055) / 1.055) ** 2.4
    return np.where(v <= 0.04045, v / 12.92, bent)


def _light(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return (H, W) light: a ramp across the frame, and pools of light around a few lamps."""
    y, x = np.mgrid[0:side, 0:side] / side
    angle, dark = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.6)
    along = ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)) / np.sqrt(2) + 0.5
    light: NDArray[np.float64] = dark + (1 - dark) * along
    for _ in range(int(rng.integers(*_LAMPS))):
        far2 = (x - rng.uniform()) ** 2 + (y - rng.uniform()) ** 2
        light = light + rng.uniform(2, 12) * np.exp(-far2 / (2 * rng.uniform(0.03, 0.09) ** 2))
    return light


def _sensed(rng: np.random.Generator, scene: NDArray[np.float64], white: float) -> NDArray[np.uint16]:
    side = scene.shape[0]
    raw = np.zeros((2 * side, 2 * side), np.uint16)
    for place, (name, plane) in {
        (0, 0): ("R", 2),
        (0, 1): ("G", 1),
        (1, 0): ("G", 1),
        (1, 1): ("B", 0),
    }.items():
        electrons = rng.poisson(scene[..., plane] * white * _COLOURS[name])
        found = electrons + rng.normal(0, _READ_NOISE, (side, side)) + BLACK
        raw[place[0] :: 2, place[1] :: 2] = np.clip(np.rint(found), 0, 4095).astype(np.uint16)
    return raw
