"""Convert published data sets from their own layouts to YOLO layout."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.files import folder_aside, resource_errors, write_text
from edgekit.core.lazy import need
from edgekit.core.watch import steps
from edgekit.data.converted import Converted, refuse_taken

# VisDrone2019-DET's ten classes in its own order, categories 1 to 10 (github.com/VisDrone/VisDrone-Dataset).
VISDRONE = (
    "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor",
)  # fmt: skip
# The nine of FLIR ADAS v2's categories that MS-YOLO is trained on, by the names its coco.json uses.
FLIR = ("person", "bike", "car", "motor", "bus", "truck", "light", "hydrant", "sign")

_VISDRONE_SPLITS = {
    "train": "VisDrone2019-DET-train", "val": "VisDrone2019-DET-val", "test": "VisDrone2019-DET-test-dev",
}  # fmt: skip
_FLIR_SPLITS = {"train": "images_thermal_train", "val": "images_thermal_val", "test": "video_thermal_test"}


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One image of the source: its file, and rows of class, cx, cy, w, h as shares."""

    image: Path
    rows: tuple[tuple[int, float, float, float, float], ...]
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A published layout.

    Attributes:
        classes: Class names by index.
        splits: Our split names and its folders.
        read: Gives the images of one split's folder.
        what: One line for a person.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, str]
    read: Callable[[Path], Iterator[Labelled]]
    what: str


def convert(name: str, source: Path, out: Path) -> Converted:
    """Write a published data set in YOLO layout to `out`; images are hard links where that is possible.

    Args:
        name: visdrone or flir.
        source: The folder that holds the set's own split folders.
        out: A folder that does not exist yet or is empty.

    Raises:
        RecipeError: There is no such layout, the source does not have it, or `out` is taken.
        ResourceError: No space or no permission.
    """
    layout = LAYOUTS[name]
    refuse_taken(out)
    found = {k: source / v for k, v in layout.splits.items() if (source / v).is_dir()}
    for needed in ("train", "val"):
        if needed not in found:
            raise RecipeError(
                f"{source}: has no folder {layout.splits[needed]}",
                hint=f"Give the folder that holds {' and '.join(layout.splits.values())}.",
            )
    images: dict[str, int] = {}
    boxes: dict[str, int] = {}
    left_out = 0
    with resource_errors(out), folder_aside(out) as aside:
        for split, folder in found.items():
            labelled = list(layout.read(folder))
            for one in steps(f"{split} images", labelled, len(labelled)):
                _write(aside, split, one)
            images[split], boxes[split] = len(labelled), sum(len(x.rows) for x in labelled)
            left_out += sum(x.left_out for x in labelled)
        lines = [f"# {name}, converted by `edgekit data convert {name}`"]
        lines += [f"{split}: images/{split}" for split in found]
        lines += ["names:", *(f"  {k}: {label}" for k, label in enumerate(layout.classes))]
        write_text(aside / "data.yaml", "\n".join(lines) + "\n")
    return Converted(data=out / "data.yaml", images=images, boxes=boxes, left_out=left_out)


def _write(out: Path, split: str, one: Labelled) -> None:
    image = out / "images" / split / one.image.name
    label = out / "labels" / split / f"{one.image.stem}.txt"
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        os.link(one.image, image)
    if not image.exists():
        shutil.copyfile(one.image, image)
    label.write_text("".join(f"{k} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for k, x, y, w, h in one.rows))


def _visdrone(folder: Path) -> Iterator[Labelled]:
    """Give the images of one VisDrone folder; a row is x,y,w,h,score,category,truncation,occlusion.

    Category 0 marks ignored regions, 11 other things, score 0 what the benchmark ignores: none of them is
    an object to find.
    """
    pillow = need("PIL.Image", extra="train", why="read image sizes")
    images = _images(folder / "images")
    for image in images:
        path = folder / "annotations" / f"{image.stem}.txt"
        if not path.is_file():
            raise RecipeError(f"{path}: no such annotations", hint="Copy the set again.")
        with pillow.open(image) as opened:
            width, height = opened.size
        rows, left_out = [], 0
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                x, y, w, h, score, kind = (int(v) for v in line.strip().rstrip(",").split(",")[:6])
            except ValueError:
                raise RecipeError(
                    f"{path}:{number}: {line[:60]!r} is no VisDrone row",
                    hint="Write x,y,w,h,score,category,truncation,occlusion.",
                ) from None
            if score == 0 or not 1 <= kind <= len(VISDRONE) or w < 1 or h < 1:
                left_out += 1
            else:
                rows.append(shares(kind - 1, x, y, w, h, width, height))
        yield Labelled(image=image, rows=tuple(rows), left_out=left_out)


def _flir(folder: Path) -> Iterator[Labelled]:
    """Give the images of one FLIR ADAS v2 folder: coco.json beside data/."""
    path = folder / "coco.json"
    for one in coco_marks(path, FLIR):
        image = folder / one.image
        if not image.is_file():
            raise RecipeError(f"{image}: no such image, named by {path}", hint="Copy the set again.")
        yield replace(one, image=image)


def coco_marks(path: Path, classes: Sequence[str]) -> Iterator[Labelled]:
    """Give the images of a COCO file by name, as the file names them, with the boxes of some classes.

    Raises:
        RecipeError: It is missing, or no COCO file.
    """
    try:
        data: Any = json.loads(path.read_text("utf-8"))
        kinds = {int(c["id"]): str(c["name"]) for c in data["categories"]}
        marks: dict[int, list[Any]] = {}
        for mark in data["annotations"]:
            marks.setdefault(int(mark["image_id"]), []).append(mark)
        for entry in sorted(data["images"], key=lambda e: str(e["file_name"])):
            width, height = int(entry["width"]), int(entry["height"])
            rows, left_out = [], 0
            for mark in marks.get(int(entry["id"]), []):
                name = kinds[int(mark["category_id"])]
                x, y, w, h = (float(v) for v in mark["bbox"])
                if name not in classes or w <= 0 or h <= 0:
                    left_out += 1
                else:
                    rows.append(shares(classes.index(name), x, y, w, h, width, height))
            yield Labelled(image=Path(str(entry["file_name"])), rows=tuple(rows), left_out=left_out)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file", hint="Give the folder as it was unpacked.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{path}: is no COCO file ({type(error).__name__}: {error})", hint="Copy the set again."
        ) from error


def shares(
    kind: int, x: float, y: float, w: float, h: float, width: int, height: int
) -> tuple[int, float, float, float, float]:
    """Return class and box, cut at the image's edges, as shares of the image."""
    x1, y1 = max(x, 0.0), max(y, 0.0)
    x2, y2 = min(x + w, float(width)), min(y + h, float(height))
    return kind, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height


def _images(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.jpg")) if folder.is_dir() else []
    if not found:
        raise RecipeError(f"{folder}: holds no .jpg images", hint="Give the folder as it was unpacked.")
    return found


LAYOUTS = {
    "visdrone": Layout(
        classes=VISDRONE, splits=_VISDRONE_SPLITS, read=_visdrone, what="VisDrone2019-DET, ten classes"
    ),
    "flir": Layout(
        classes=FLIR,
        splits=_FLIR_SPLITS,
        read=_flir,
        what="FLIR ADAS v2 thermal, the nine classes of MS-YOLO",
    ),
}
