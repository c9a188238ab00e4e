"""Read COCO JSON annotations."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.errors import RecipeError
from edgekit.data.sample import Sample, Split


def read_coco(path: Path, *, images: Path | None = None) -> Split:
    """Return the images and boxes of a COCO instances file.

    Args:
        path: The JSON file.
        images: Folder of the images; the file's own folder, or `images` in it, where None.

    Raises:
        RecipeError: It is missing, malformed, or names images that are not there.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
        categories = sorted(data["categories"], key=lambda c: int(c["id"]))
        index = {int(c["id"]): k for k, c in enumerate(categories)}
        marks: dict[int, list[Any]] = defaultdict(list)
        for mark in data.get("annotations", []):
            marks[int(mark["image_id"])].append(mark)
        folder = _folder(path, images, data["images"])
        samples = tuple(
            _sample(folder, entry, marks[int(entry["id"])], index)
            for entry in sorted(data["images"], key=lambda e: str(e["file_name"]))
        )
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file", hint="Check data.path.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{path}: is no COCO instances file ({type(error).__name__}: {error})",
            hint="It needs images, annotations and categories.",
        ) from error
    if not samples:
        raise RecipeError(f"{path}: holds no images", hint="Check the file.")
    return Split(samples=samples, names=tuple(str(c["name"]) for c in categories))


def _folder(path: Path, images: Path | None, entries: list[Any]) -> Path:
    places = [images] if images else [path.parent, path.parent / "images", path.parent.parent / "images"]
    first = str(entries[0]["file_name"]) if entries else ""
    for place in places:
        if place and (place / first).is_file():
            return place
    raise RecipeError(f"{path}: image {first} is not beside it", hint="Set data.images to the image folder.")


def _sample(folder: Path, entry: Any, marks: list[Any], index: dict[int, int]) -> Sample:
    width, height = float(entry["width"]), float(entry["height"])
    rows = np.array([m["bbox"] for m in marks], np.float64).reshape(-1, 4)
    rows[:, :2] += rows[:, 2:] / 2
    return Sample(
        path=folder / str(entry["file_name"]),
        boxes=rows / np.array([width, height, width, height]),
        classes=np.array([index[int(m["category_id"])] for m in marks], np.int64),
        crowd=np.array([bool(m.get("iscrowd", 0)) for m in marks], bool),
    )
