"""Open a recipe's data: drawn on demand or the user's own, split into what each stage may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.codecs.sensor import Sensor
from edgekit.core.cache import StepCache
from edgekit.core.digest import digest_file, digest_value
from edgekit.core.errors import RecipeError
from edgekit.core.records import Contract
from edgekit.core.versions import versions
from edgekit.core.watch import watcher
from edgekit.data.dataset import Sample, draw, read_split
from edgekit.data.lint import lint_calibration
from edgekit.data.make import GENERATED, make_set
from edgekit.data.sample import Split
from edgekit.jobs.ask import Ask

QUICK_IMAGES = 200
_GUARD = 256
# Scenes drawn on demand: enough for calibration, guard and verdict.
_DRAWN = {False: (512, 500), True: (352, QUICK_IMAGES)}


@dataclass(frozen=True, kw_only=True)
class Data:
    """Labelled images, each group with the SHA-256 over its files and labels.

    Attributes:
        calibration: For ranges, from training images.
        guard: For the accuracy guard; calibration never saw them.
        validation: For the verdict alone.
        names: Class names.
        warnings: What the lint found.
        sensor: What recorded them, where they are a sensor's own values.
        task: detect or classify.
    """

    calibration: tuple[Sample, ...]
    guard: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    names: tuple[str, ...]
    warnings: tuple[str, ...]
    calibration_digest: str
    guard_digest: str
    validation_digest: str
    sensor: Sensor | None = None
    task: str = "detect"


def data_file(ask: Ask) -> Path | str:
    """Return the data file a recipe names: a path, or the name of a set edgekit draws."""
    path = ask.checked.recipe.data.path
    return path if path in GENERATED else ask.checked.beside(path)


def open_data(ask: Ask) -> Data | None:
    """Return the recipe's data, None where it names none; a generated set is drawn on first use.

    Raises:
        RecipeError: A file is missing or malformed, or calibration has too few images.
    """
    part = ask.checked.recipe.data
    if not part.path:
        return None
    watcher().phase("data")
    file = data_file(ask)
    path = drawn(ask.cache, str(file), quick=ask.quick) if isinstance(file, str) else file
    images = str(ask.checked.beside(part.images)) if part.images else ""
    train, val = (read_split(path, s, images=images) for s in (part.calibration, part.validation))
    draws = draw(train, calibration=part.samples, guard=_GUARD, seed=part.seed)
    limit = min(part.limit or 10**9, QUICK_IMAGES if ask.quick else 10**9)
    validation = val.samples[:limit]
    names = same_kind(train, val, path)
    found = [digests(group) for group in (draws.calibration, draws.guard, validation)]
    return Data(
        calibration=draws.calibration, guard=draws.guard, validation=validation, names=names,
        warnings=tuple(lint_calibration(found[0], found[2])),
        calibration_digest=_digest(draws.calibration, found[0]),
        guard_digest=_digest(draws.guard, found[1]),
        validation_digest=_digest(validation, found[2]), sensor=train.sensor, task=train.task,
    )  # fmt: skip


def same_kind(train: Split, val: Split, path: Path) -> tuple[str, ...]:
    """Return the class names of two splits.

    Raises:
        RecipeError: They differ in classes or in having boxes.
    """
    if train.names != val.names:
        raise RecipeError(f"{path}: training and validation have other classes", hint="Use one list.")
    if train.task != val.task:
        raise RecipeError(
            f"{path}: one split has a folder a class, the other one has boxes", hint="Lay both out alike."
        )
    return val.names


def drawn(cache: StepCache, name: str, *, quick: bool, train: int = 0) -> Path:
    """Return the `data.yaml` of a generated set, drawn once and kept.

    Args:
        cache: Where it is kept.
        name: Of the set.
        quick: Fewer images.
        train: Training images instead of those that calibration needs.
    """
    made = GENERATED[name]
    few, val = made.split if made.windows else _DRAWN[quick]
    train = few if made.windows else train or few
    inputs = {
        "train": train,
        "val": val,
        "seed": 0,
        "scenes": [digest_file(p) for p in made.sources],
        **versions("numpy"),
    }

    def make(folder: Path) -> None:
        make_set(name, folder / "set", train=train, val=val)

    return cache.step(name, inputs, make) / "set" / "data.yaml"


def digests(samples: Sequence[Sample]) -> list[str]:
    """Return the SHA-256 of each image.

    Raises:
        RecipeError: An image is missing.
    """
    found = []
    for sample in samples:
        if not sample.path.is_file():
            raise RecipeError(f"{sample.path}: no such image", hint="Correct the data set.")
        found.append(digest_file(sample.path))
    return found


def timing_frames(data: Data | None, contract: Contract, count: int = 256) -> list[Path]:
    """Return frames that timings and parity draw from; none where the model takes no frames."""
    return [s.path for s in data.calibration[:count]] if data and contract.frames else []


def _digest(samples: Sequence[Sample], images: list[str]) -> str:
    labels = [[s.classes.tolist(), s.boxes.tolist()] for s in samples]
    return digest_value([images, labels])
