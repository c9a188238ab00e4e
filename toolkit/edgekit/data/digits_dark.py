"""Show scikit-learn's handwritten digits to a 12-bit sensor in the dark: real shapes, a drawn sensor."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from edgekit.codecs.sensor import Sensor
from edgekit.core.lazy import need
from edgekit.data.window import Window

CLASSES = tuple(str(k) for k in range(10))
SENSOR = Sensor(bits=12)
SIDE = 8
# Images of the set (1,797 in all) that are for training, after one fixed shuffle.
TRAIN = 1297
# Mean signal of a frame in sensor values; shot noise is its square root.
_MEAN = (20.0, 600.0)
_READ_NOISE = 1.5
_FULL_PIXELS = 2


@functools.cache
def digits() -> Any:
    """Return scikit-learn's digits in one fixed order: (1797, 8, 8) from 0 to 1, and classes."""
    found = need("sklearn.datasets", extra="train", why="draw digits").load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return found.images[order] / 16.0, found.target[order]


def draw_window(*, seed: int, split: str, index: int, size: int = SIDE) -> Window:
    """Return digit `index` of `split` as raw values (8, 8) uint16: the same arguments give the same ones.

    Args:
        seed: Of light and noise.
        split: "train" or "val"; beyond the digits there are, the same ones come again in another light.
        index: The digit's number in its split.
        size: Always 8.
    """
    del size
    images, labels = digits()
    first, count = (0, TRAIN) if split == "train" else (TRAIN, len(images) - TRAIN)
    at = first + index % count
    rng = np.random.default_rng([seed, {"train": 7, "val": 8}[split], index])
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = 0.6 + 0.4 * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    mean = float(np.exp(rng.uniform(*np.log(_MEAN))))
    scene = (images[at] + 0.05) * ramp
    electrons = rng.poisson(scene / scene.mean() * mean)
    raw = np.rint(electrons + rng.normal(0, _READ_NOISE, (SIDE, SIDE)))
    raw.flat[rng.choice(SIDE * SIDE, _FULL_PIXELS, replace=False)] = 4095
    return Window(signal=np.clip(raw, 0, 4095).astype(np.uint16), label=int(labels[at]))
