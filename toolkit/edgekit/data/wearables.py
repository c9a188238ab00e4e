"""Convert published recordings of wearables (WEAR, RealWorld) to windows of integer counts with a class each.

WEAR (Bock et al., 2023): `sbj_*.csv` with `sbj_id`, columns such as `right_arm_acc_x` in g, and `label`, 50 Hz.
RealWorld (Sztyler and Stuckenschmidt, PerCom 2016): `acc_<activity>_<position>.csv` in a folder a person, with
`attr_time` in ms and `attr_x`, `attr_y`, `attr_z` in m/s², about 50 Hz.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor
from edgekit.core.errors import RecipeError
from edgekit.core.files import folder_aside, resource_errors, write_text
from edgekit.core.watch import steps
from edgekit.data.converted import Converted, refuse_taken
from edgekit.data.make import sensor_yaml

RATE_HZ, _G = 50.0, 9.80665
# People whose recordings are for validation: a fifth, the last ones by name.
_VALIDATION = 0.2
_NO_LABEL = frozenset({"", "null", "nan", "none"})
_REALWORLD = re.compile(r"^acc_(?P<activity>[a-z]+)_(?P<position>[a-z]+)$")


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How recordings are cut and counted.

    Attributes:
        position: Where the sensor sits, as the set's columns or files name it.
        window: Samples of one window; windows overlap by half.
        bits: Of the sensor that is drawn: values are rounded to its counts.
        range_g: Its range is -range_g to range_g.
    """

    position: str
    window: int = 128
    bits: int = 12
    range_g: float = 8.0


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A stretch of one person's recording with one label: (samples, 3) in g."""

    person: str
    label: str
    signal: NDArray[np.float64]


def convert_wear(source: Path, out: Path, cut: Cut) -> Converted:
    """Write WEAR as windows with a class each.

    Raises:
        RecipeError: There are no such files or columns, or `out` is taken.
        ResourceError: No space or no permission.
    """
    files = sorted(source.rglob("sbj_*.csv"))
    return _written(
        "wear",
        source,
        out,
        cut,
        (p for f in steps("reading", files, len(files)) for p in _wear(f, cut.position)),
    )


def convert_realworld(source: Path, out: Path, cut: Cut) -> Converted:
    """Write RealWorld as windows with a class each.

    Raises:
        RecipeError: There are no such files or columns, or `out` is taken.
        ResourceError: No space or no permission.
    """
    files = [p for p in sorted(source.rglob("acc_*.csv")) if _REALWORLD.match(p.stem)]
    own = [p for p in files if _REALWORLD.match(p.stem)["position"] == cut.position]  # type: ignore[index]
    if files and not own:
        have = sorted({_REALWORLD.match(p.stem)["position"] for p in files})  # type: ignore[index]
        raise RecipeError(
            f"{source}: no sensor sits at {cut.position!r}", hint=f"There are: {', '.join(have)}."
        )
    return _written(
        "realworld", source, out, cut, (_realworld(source, f) for f in steps("reading", own, len(own)))
    )


def _wear(path: Path, position: str) -> Iterator[_Part]:
    """Give the stretches of one label of a WEAR file."""
    columns = [f"{position}_acc_{axis}" for axis in "xyz"]
    rows, labels = [], []
    for number, row in _rows(path, [*columns, "label"]):
        try:
            rows.append([float(row[c] or "nan") for c in columns])
        except ValueError:
            raise RecipeError(
                f"{path}:{number}: {row[columns[0]]!r} is no number", hint="Copy the file again."
            ) from None
        labels.append(row["label"].strip().lower())
    if not rows:
        return
    signal, words = np.array(rows), np.array(labels)
    ends = np.flatnonzero(words[1:] != words[:-1]) + 1
    for part, word in zip(np.split(signal, ends), words[np.concatenate([[0], ends])], strict=True):
        yield _Part(person=path.stem, label=str(word), signal=part)


def _realworld(source: Path, path: Path) -> _Part:
    rows = []
    for number, row in _rows(path, ["attr_x", "attr_y", "attr_z"]):
        try:
            rows.append([float(row[f"attr_{axis}"]) / _G for axis in "xyz"])
        except ValueError:
            raise RecipeError(
                f"{path}:{number}: {row['attr_x']!r} is no number", hint="Copy the file again."
            ) from None
    person, *inside = path.relative_to(source).parts
    if not inside:
        raise RecipeError(
            f"{path}: lies in no folder of a person",
            hint="Give the folder that holds a folder for each person.",
        )
    label = _REALWORLD.match(path.stem)["activity"]  # type: ignore[index]
    return _Part(person=person, label=label, signal=np.array(rows).reshape(-1, 3))


def _rows(path: Path, needed: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Give the rows of a CSV file by column, with their line numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [c for c in needed if c not in (reader.fieldnames or ())]
        if missing:
            raise RecipeError(
                f"{path}: has no column {missing[0]!r}",
                hint=f"There are: {', '.join(reader.fieldnames or ())}.",
            )
        for row in reader:
            if any(row[c] is None for c in needed):
                raise RecipeError(
                    f"{path}:{reader.line_num}: the row is too short", hint="Copy the file again."
                )
            yield reader.line_num, row


def _written(name: str, source: Path, out: Path, cut: Cut, parts: Iterator[_Part]) -> Converted:
    """Cut stretches into windows of counts, split by person, and write them."""
    refuse_taken(out)
    kept, left_out = _windows(parts, cut)
    people = sorted({person for person, _, _ in kept})
    if len(people) < 2:
        raise RecipeError(
            f"{source}: holds windows of {len(people)} people, two are needed (training and validation)",
            hint="Give the folder as it was unpacked, or a shorter --window.",
        )
    behind = set(people[-max(round(_VALIDATION * len(people)), 1) :])
    classes = sorted({label for _, label, _ in kept})
    sensor = Sensor(bits=cut.bits, signed=True, axes=("x", "y", "z"), rate_hz=RATE_HZ)
    counts = {"train": 0, "val": 0}
    with resource_errors(out), folder_aside(out) as aside:
        for split in counts:
            for label in classes:
                (aside / "signals" / split / label).mkdir(parents=True)
        for k, (person, label, window) in enumerate(kept):
            split = "val" if person in behind else "train"
            np.save(aside / "signals" / split / label / f"{k:06d}-{person}.npy", window)
            counts[split] += 1
        names = "".join(f"  {k}: {label}\n" for k, label in enumerate(classes))
        head = f"# {name}, {cut.position}, converted by `edgekit data convert {name}`\n"
        where = "train: signals/train\nval: signals/val\nnames:\n"
        write_text(aside / "data.yaml", head + where + names + sensor_yaml(sensor))
    return Converted(data=out / "data.yaml", images=counts, boxes={"train": 0, "val": 0}, left_out=left_out)


def _windows(parts: Iterator[_Part], cut: Cut) -> tuple[list[tuple[str, str, NDArray[np.int16]]], int]:
    """Return windows of counts with person and label, and how many had no label or gaps."""
    half = 1 << (cut.bits - 1)
    kept, left_out = [], 0
    for part in parts:
        for start in range(0, len(part.signal) - cut.window + 1, max(cut.window // 2, 1)):
            window = part.signal[start : start + cut.window]
            if part.label in _NO_LABEL or not np.isfinite(window).all():
                left_out += 1
                continue
            counts = np.clip(np.rint(window / cut.range_g * half), -half, half - 1).astype(np.int16)
            kept.append((part.person, part.label, counts))
    return kept, left_out


WEARABLES: dict[str, tuple[str, str, Callable[[Path, Path, Cut], Converted]]] = {
    "wear": ("WEAR, outdoor sports at four limbs", "right_arm", convert_wear),
    "realworld": ("RealWorld, eight activities at seven places", "forearm", convert_realworld),
}
