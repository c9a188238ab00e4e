"""Labelled images of one split, wherever they came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import RecipeError
from edgekit.data.coco import read_coco
from edgekit.data.lint import FEWEST
from edgekit.data.sample import Sample, Split
from edgekit.data.yolo import read_yolo

__all__ = ["Sample", "Split", "draw", "read_split"]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What a recipe draws from training data, never from validation.

    Attributes:
        calibration: For ranges.
        guard: For the accuracy guard; calibration never saw these.
    """

    calibration: tuple[Sample, ...]
    guard: tuple[Sample, ...]


def read_split(path: Path, split: str, *, images: str = "") -> Split:
    """Return one split of a data set.

    Args:
        path: A `data.yaml` in YOLO layout or a COCO JSON file.
        split: Key in the `data.yaml` ("train", "val"); for COCO, the word that replaces `{split}` in
            the file's name, or nothing.
        images: Folder of a COCO file's images.

    Raises:
        RecipeError: Anything is missing or malformed.
    """
    text = str(path).replace("{split}", split)
    if text.endswith(".json"):
        return read_coco(Path(text), images=Path(images.replace("{split}", split)) if images else None)
    if text.endswith((".yaml", ".yml")):
        return read_yolo(Path(text), split)
    raise RecipeError(
        f"data.path: {path} is neither a data.yaml nor a COCO .json", hint="Give one of the two."
    )


def draw(split: Split, *, calibration: int, guard: int, seed: int) -> Draws:
    """Return seeded draws without replacement: calibration first, the guard from what is left.

    Where images are scarce, a quarter is kept for the guard, as long as calibration keeps 32.
    """
    calibration = min(calibration, max(FEWEST, len(split.samples) * 3 // 4))
    order = np.random.default_rng([seed, 1]).permutation(len(split.samples))
    chosen = [split.samples[int(k)] for k in order]
    return Draws(
        calibration=tuple(chosen[:calibration]), guard=tuple(chosen[calibration : calibration + guard])
    )


def pixel_boxes(sample: Sample, width: int, height: int) -> NDArray[np.float64]:
    """Return the sample's boxes as (N, 4) x1 y1 x2 y2 in pixels of an image of that size."""
    boxes = sample.boxes * np.array([width, height, width, height], np.float64)
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
