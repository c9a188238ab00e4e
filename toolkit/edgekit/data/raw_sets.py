"""Convert published sets of raw camera images (PASCALRAW, RAW-NOD) to mosaics in 16-bit PNG with labels.

Facts of the layouts, from the sets' own pages: PASCALRAW (purl.stanford.edu/hq050zr7488) has one VOC XML and one .nef
an image and lists of names a split; RAW-NOD (github.com/igor-morawski/RAW-NOD) has COCO files
`raw_new_<camera>_<split>.json` and .NEF or .ARW files. Files are found by name wherever they lie below the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import MOSAICS, Sensor
from edgekit.core.errors import RecipeError
from edgekit.core.files import folder_aside, resource_errors, write_text
from edgekit.core.lazy import need
from edgekit.core.watch import steps
from edgekit.data.convert import Labelled, coco_marks, shares
from edgekit.data.converted import Converted, refuse_taken
from edgekit.data.make import sensor_yaml

CLASSES = ("person", "bicycle", "car")
_RAW = frozenset({".nef", ".arw", ".dng", ".cr2"})
# cv2.IMWRITE_PNG_COMPRESSION, 1.
_PNG = [16, 1]


def convert_pascalraw(source: Path, out: Path) -> Converted:
    """Write PASCALRAW in YOLO layout with a `sensor` part.

    Raises:
        RecipeError: Lists, annotations or raw files are missing, or `out` is taken.
        MissingError: rawpy is not installed.
        ResourceError: No space or no permission.
    """
    splits, marks = {}, {p.stem: p for p in source.rglob("*.xml")}
    for split, words in {"train": ("train", "trainval"), "val": ("val", "test")}.items():
        lists = [p for w in words for p in sorted(source.rglob(f"{w}.txt"))]
        if lists:
            names = [x.split()[0] for x in lists[0].read_text().splitlines() if x.strip()]
            splits[split] = [
                _voc(source, marks, Path(n).stem) for n in steps(f"{split} labels", names, len(names))
            ]
    return _written(
        "pascalraw", source, out, splits, hint="Give the folder that holds train.txt and test.txt."
    )


def convert_raw_nod(source: Path, out: Path) -> Converted:
    """Write one camera of RAW-NOD in YOLO layout with a `sensor` part.

    Raises:
        RecipeError: Annotations or raw files are missing, there are two cameras, or `out` is taken.
        MissingError: rawpy is not installed.
        ResourceError: No space or no permission.
    """
    files = sorted(source.rglob("raw_*.json"))
    cameras = {p.stem.rpartition("_")[0] for p in files}
    if len(cameras) > 1:
        raise RecipeError(
            f"{source}: holds {len(cameras)} cameras ({', '.join(sorted(cameras))}), and each has a sensor of its own",
            hint="Give the folder of one of them.",
        )
    splits = {}
    for path in files:
        split = path.stem.rpartition("_")[2]
        if split in {"train", "val"}:
            splits[split] = list(coco_marks(path, CLASSES))
    return _written(
        "raw-nod",
        source,
        out,
        splits,
        hint="Give the folder that holds raw_new_<camera>_train.json and _val.json.",
    )


def _voc(source: Path, marks: Mapping[str, Path], stem: str) -> Labelled:
    path = marks.get(stem)
    if path is None:
        raise RecipeError(f"{source}: no annotations {stem}.xml", hint="Copy the set again.")
    try:
        # expat has refused entities that grow without end since 2.4.1, and there is nothing else here to abuse.
        tree = ET.parse(path).getroot()  # noqa: S314
        width, height = (int(str(tree.findtext(f"size/{k}"))) for k in ("width", "height"))
        rows, left_out = [], 0
        for one in tree.iter("object"):
            box = [float(str(one.findtext(f"bndbox/{k}"))) for k in ("xmin", "ymin", "xmax", "ymax")]
            name = str(one.findtext("name")).strip().lower()
            if name not in CLASSES or box[2] <= box[0] or box[3] <= box[1]:
                left_out += 1
            else:
                x, y = box[:2]
                rows.append(shares(CLASSES.index(name), x, y, box[2] - x, box[3] - y, width, height))
    except (ET.ParseError, ValueError) as error:
        raise RecipeError(f"{path}: is no VOC annotation ({error})", hint="Copy the set again.") from error
    return Labelled(image=path, rows=tuple(rows), left_out=left_out)


def _written(
    name: str, source: Path, out: Path, splits: dict[str, list[Labelled]], *, hint: str
) -> Converted:
    """Write mosaics, labels and data.yaml."""
    refuse_taken(out)
    for needed in ("train", "val"):
        if not splits.get(needed):
            raise RecipeError(f"{source}: names no {needed} images", hint=hint)
    need("rawpy", extra="raw", why=f"convert {name}")
    found = {p.stem: p for p in source.rglob("*") if p.suffix.lower() in _RAW}
    sensor: Sensor | None = None
    with resource_errors(out), folder_aside(out) as aside:
        for split, marked in splits.items():
            for kind in ("images", "labels"):
                (aside / kind / split).mkdir(parents=True)
            for one in steps(f"{split} images", marked, len(marked)):
                if one.image.stem not in found:
                    raise RecipeError(f"{source}: no raw file {one.image.stem}", hint="Copy the set again.")
                sensor = _image(
                    found[one.image.stem], aside / "images" / split / f"{one.image.stem}.png", sensor
                )
                lines = "".join(f"{k} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for k, x, y, w, h in one.rows)
                write_text(aside / "labels" / split / f"{one.image.stem}.txt", lines)
        assert sensor
        head = f"# {name}, converted by `edgekit data convert {name}`\ntrain: images/train\nval: images/val\nnames:\n"
        names = "".join(f"  {k}: {label}\n" for k, label in enumerate(CLASSES))
        write_text(aside / "data.yaml", head + names + sensor_yaml(sensor))
    count = {k: len(v) for k, v in splits.items()}
    boxes = {k: sum(len(m.rows) for m in v) for k, v in splits.items()}
    left_out = sum(m.left_out for v in splits.values() for m in v)
    return Converted(data=out / "data.yaml", images=count, boxes=boxes, left_out=left_out)


def _image(path: Path, out: Path, before: Sensor | None) -> Sensor:
    """Write one raw file as a mosaic; return its sensor, which must be that of the file before."""
    mosaic, sensor = read_raw(path)
    if before and replace(sensor, black=before.black) != before:
        raise RecipeError(
            f"{path}: its sensor is {sensor}, that of the files before {before}",
            hint="Convert each camera alone.",
        )
    cv2 = need("cv2", extra="host", why="write images")
    done, data = cv2.imencode(".png", mosaic, _PNG)
    assert done
    out.write_bytes(data.tobytes())
    # Black moves by a value or two with temperature; the smallest one clips nothing.
    return replace(sensor, black=min(sensor.black, before.black)) if before else sensor


def read_raw(path: Path) -> tuple[NDArray[np.uint16], Sensor]:
    """Return a camera's raw file as a mosaic of even sides (H, W) uint16, and what its sensor is.

    Raises:
        RecipeError: LibRaw cannot read it, or its pattern is no Bayer one.
    """
    rawpy = need("rawpy", extra="raw", why=f"read {path.name}")
    try:
        with rawpy.imread(str(path)) as opened:
            values = opened.raw_image_visible
            mosaic: NDArray[np.uint16] = values[: values.shape[0] // 2 * 2, : values.shape[1] // 2 * 2].copy()
            colours = opened.color_desc.decode()
            pattern = "".join(colours[int(k)] for k in opened.raw_pattern.ravel())
            black, white = round(float(np.mean(opened.black_level_per_channel))), int(opened.white_level)
    except (rawpy.LibRawError, AttributeError, IndexError) as error:
        raise RecipeError(f"{path}: LibRaw cannot read it ({error})", hint="Copy the file again.") from error
    if pattern not in MOSAICS:
        raise RecipeError(f"{path}: its pattern {pattern!r} is no Bayer mosaic", hint="Leave the file out.")
    bits = max(int(mosaic.max()), white).bit_length()
    return mosaic, Sensor(bits=bits, black=black, white=white, mosaic=pattern)


RAW_SETS: dict[str, tuple[str, Callable[[Path, Path], Converted]]] = {
    "pascalraw": ("PASCALRAW, 12-bit raw of streets by day", convert_pascalraw),
    "raw-nod": ("RAW-NOD, 14-bit raw of streets at night, one camera", convert_raw_nod),
}
