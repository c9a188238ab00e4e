"""Print scikit-learn's handwritten digits as small pictures: moved, with a hole and noise, in some colour."""

from __future__ import annotations

import numpy as np

from edgekit.data.digits_dark import CLASSES, TRAIN, digits
from edgekit.data.window import Window

__all__ = ["CLASSES", "SIDE", "TRAIN", "draw_window"]

SIDE = 32
_CELL = 4  # pixels of each of the 8 x 8 values
_NOISE, _PAPER = 0.2, 0.15


def draw_window(*, seed: int, split: str, index: int, size: int = SIDE) -> Window:
    """Return digit `index` of `split` as a picture (32, 32, 3) uint8, BGR: the same arguments give the same one.

    Args:
        seed: Of place, hole, colour and noise.
        split: "train" or "val"; beyond the digits there are, the same ones come again, drawn otherwise.
        index: The digit's number in its split.
        size: Always 32.
    """
    del size
    images, labels = digits()
    first, count = (0, TRAIN) if split == "train" else (TRAIN, len(images) - TRAIN)
    at = first + index % count
    rng = np.random.default_rng([seed, {"train": 7, "val": 8}[split], index])
    ink = np.kron(images[at], np.ones((_CELL, _CELL)))
    ink = np.roll(ink, tuple(rng.integers(-_CELL, _CELL + 1, 2)), (0, 1))
    y, x = rng.integers(0, SIDE - 2 * _CELL + 1, 2)
    ink[y : y + 2 * _CELL, x : x + 2 * _CELL] = 0
    colour = rng.uniform(0.55, 0.85, 3)
    picture = _PAPER + ink[..., None] * colour + rng.normal(0, _NOISE, (SIDE, SIDE, 3))
    return Window(signal=np.rint(picture.clip(0, 1) * 255).astype(np.uint8), label=int(labels[at]))
