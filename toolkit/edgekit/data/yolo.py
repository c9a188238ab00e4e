"""Read data sets in YOLO layout: a data.yaml, and images with a text file of boxes each, or a folder a class."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.codecs.sensor import Sensor, check_sensor
from edgekit.core.errors import RecipeError
from edgekit.data.sample import Sample, Split
from edgekit.forms.read import Form, read_form
from edgekit.frames import raw
from edgekit.frames.images import SUFFIXES


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The keys of a data.yaml that edgekit reads."""

    names: dict[int, str | int] | list[str | int]
    path: str = ""
    train: str | list[str] = ""
    val: str | list[str] = ""
    test: str | list[str] | None = ""
    sensor: Sensor | None = None


def read_yolo(path: Path, split: str) -> Split:
    """Return one split of a data.yaml.

    Raises:
        RecipeError: A file is missing or a label is malformed; the message names file and line.
    """
    form = read_form(path)
    known = {k: v for k, v in form.value.items() if k in {f.name for f in fields(_Layout)}}
    layout = form.record(_Layout, known)
    form.refuse()
    assert layout is not None
    names = layout.names
    listed = [names[k] for k in sorted(names)] if isinstance(names, dict) else names
    ordered = tuple(str(n) for n in listed)
    if layout.sensor:
        check_sensor(layout.sensor, str(path))
    suffixes = raw.SUFFIXES if layout.sensor else SUFFIXES
    places = _places(form, layout, split)
    task = "classify" if _is_a_folder_a_class(places, ordered) else "detect"
    if task == "classify":
        samples = [s for place in places for s in _classed(place, ordered, suffixes)]
    else:
        samples = [_sample(image, len(ordered)) for place in places for image in _images(place, suffixes)]
    if not samples:
        raise RecipeError(f"{path}: split {split!r} holds no images", hint="Check the paths in it.")
    return Split(samples=tuple(samples), names=ordered, sensor=layout.sensor, task=task)


def _is_a_folder_a_class(places: list[Path], names: tuple[str, ...]) -> bool:
    """Whether a split's folder holds a folder for each class, and nothing else that counts."""
    return all(p.is_dir() and {d.name for d in p.iterdir() if d.is_dir()} >= set(names) for p in places)


def _classed(place: Path, names: tuple[str, ...], suffixes: frozenset[str]) -> list[Sample]:
    """Return the samples of a folder a class, file by file, so that the first ones are of all classes."""
    found = sorted(
        (path.name, k, path)
        for k, name in enumerate(names)
        for path in (place / name).rglob("*")
        if path.suffix.lower() in suffixes
    )
    none, crowd = np.zeros((0, 4)), np.zeros(0, bool)
    return [Sample(path=p, boxes=none, classes=np.array([k], np.int64), crowd=crowd) for _, k, p in found]


def _places(form: Form, layout: _Layout, split: str) -> list[Path]:
    given: Any = getattr(layout, split, None)
    if not given:
        raise RecipeError(
            f"{form.path}: has no split {split!r}", hint=f"Add `{split}:` with its image folder."
        )
    root = form.path.parent / layout.path
    return [root / one for one in ([given] if isinstance(given, str) else given)]


def _images(place: Path, suffixes: frozenset[str]) -> list[Path]:
    """Return the images of a folder, or those a text file lists, in a fixed order."""
    if place.is_dir():
        return sorted(p for p in place.rglob("*") if p.suffix.lower() in suffixes)
    if place.suffix == ".txt" and place.is_file():
        lines = [line.strip() for line in place.read_text().splitlines() if line.strip()]
        return [place.parent / line for line in lines]
    raise RecipeError(f"{place}: no such image folder", hint="Check `path`, `train` and `val`.")


def _sample(image: Path, classes: int) -> Sample:
    rows = _rows(_label_file(image), classes)
    return Sample(
        path=image, boxes=rows[:, 1:], classes=rows[:, 0].astype(np.int64), crowd=np.zeros(len(rows), bool)
    )


def _label_file(image: Path) -> Path:
    """Return the label file: the last `images` in the path becomes `labels`."""
    parts = list(image.parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k] == "images":
            parts[k] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _rows(path: Path, classes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return (N, 5) rows: class and box; a missing file means an image without objects."""
    if not path.is_file():
        return np.zeros((0, 5))
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(v) for v in line.split()]
        except ValueError:
            values = []
        if len(values) > 5 and len(values) % 2 == 1:
            values = _polygon_box(values)
        fits = len(values) == 5 and values[0] == int(values[0]) and 0 <= values[0] < classes
        if not fits or not all(-0.01 <= v <= 1.01 for v in values[1:]):
            raise RecipeError(
                f"{path}:{number}: {line.strip()[:60]!r} is no label",
                hint=f"Write: class (0 to {classes - 1}), centre x, centre y, width, height in 0 to 1.",
            )
        rows.append(values)
    return np.array(rows, np.float64).reshape(-1, 5)


def _polygon_box(values: list[float]) -> list[float]:
    x, y = values[1::2], values[2::2]
    middle = [(min(x) + max(x)) / 2, (min(y) + max(y)) / 2]
    return [values[0], *middle, max(x) - min(x), max(y) - min(y)]
