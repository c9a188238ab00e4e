"""Paint scikit-learn's handwritten digits in colour, each with a caption that says what there is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need
from edgekit.data.digits_dark import CLASSES, TRAIN, digits

SIDE = 32
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INKS = {"red": (214, 48, 40), "green": (38, 166, 70), "blue": (44, 86, 220), "orange": (240, 150, 20)}
PAPERS = {"black": (12, 12, 14), "white": (244, 244, 240)}
CAPTIONS = (
    "a {ink} {digit} on {paper}", "{ink} {digit} on {paper}", "the digit {digit} in {ink} on {paper}",
    "a {digit} in {ink} on a {paper} page",
)  # fmt: skip
# 8 x 8 values become 24 x 24 pixels with a border of 4.
_INNER = 24


@dataclass(frozen=True, kw_only=True)
class Glyph:
    """One captioned picture.

    Attributes:
        picture: (32, 32, 3) uint8, RGB.
        caption: What is on it.
        label: The digit.
    """

    picture: NDArray[np.uint8]
    caption: str
    label: int


def draw_glyph(*, seed: int, split: str, index: int) -> Glyph:
    """Return picture `index` of `split`: the same arguments give the same one.

    Args:
        seed: Of place, colours and wording.
        split: "train" or "val": different people's digits.
        index: Beyond the digits there are, the same ones come again, painted otherwise.
    """
    cv2 = need("cv2", extra="host")
    images, labels = digits()
    first, count = (0, TRAIN) if split == "train" else (TRAIN, len(images) - TRAIN)
    at = first + index % count
    rng = np.random.default_rng([seed, {"train": 9, "val": 10}[split], index])
    small = np.asarray(images[at], np.float32)
    ink = cv2.resize(small / max(float(small.max()), 1e-6), (_INNER, _INNER), interpolation=cv2.INTER_CUBIC)
    ink = np.clip((ink.clip(0, 1) - 0.3) / 0.4, 0, 1)
    y, x = (int(v) for v in rng.integers(2, SIDE - _INNER - 1, 2))
    share = np.zeros((SIDE, SIDE, 1), np.float32)
    share[y : y + _INNER, x : x + _INNER, 0] = ink
    digit = DIGITS[int(labels[at])]
    colour, paper = (list(c)[int(rng.integers(len(c)))] for c in (INKS, PAPERS))
    picture = share * np.array(INKS[colour], np.float32) + (1 - share) * np.array(PAPERS[paper], np.float32)
    caption = CAPTIONS[int(rng.integers(len(CAPTIONS)))].format(ink=colour, digit=digit, paper=paper)
    return Glyph(picture=np.rint(picture).astype(np.uint8), caption=caption, label=int(labels[at]))


__all__ = ["CLASSES", "DIGITS", "Glyph", "draw_glyph"]
