"""Train a recipe's model on its data; a finished training is kept, a killed one goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.core import versions
from edgekit.core.digest import digest_value
from edgekit.core.errors import MissingError, RecipeError, ResourceError
from edgekit.core.files import resource_errors, write_bytes, write_json
from edgekit.core.lazy import have, need
from edgekit.core.lock import locked
from edgekit.core.records import Frames
from edgekit.core.watch import watcher
from edgekit.data.dataset import read_split
from edgekit.data.sample import Split
from edgekit.jobs.accuracy import labels_of, metric_of, truths_of
from edgekit.jobs.ask import Ask
from edgekit.jobs.data import data_file, digests, drawn, same_kind
from edgekit.metrics.classes import class_scores
from edgekit.metrics.coco_map import score
from edgekit.models.classifiers import is_classifier
from edgekit.models.find import find_by_name
from edgekit.models.records import Source
from edgekit.models.small import SMALL
from edgekit.training.settings import TrainPart

WEIGHTS, RECORD = "weights.safetensors", "train.json"
_LICENCE = "AGPL-3.0 (trained with ultralytics)"
# Scenes drawn for a training on a generated set where `train.limit` does not say less.
_SCENES, _TILES_A_SCENE = 2000, 4
# Whose code decides what a training learns and which epoch is the best.
ROOMS = ("training", "models", "data", "frames", "codecs", "metrics", "answers")
_END_TO_END = ("yolov10", "yolo26")
_CLASSIFIERS = ("small", "classifier")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training.

    Attributes:
        weights: A safetensors file, stored in fp16, with class names and record in its header.
        record: Settings, data, epochs and machine, as in `train.json`.
        fresh: Whether it was trained now, or kept from before.
    """

    weights: Path
    record: Mapping[str, Any]
    fresh: bool


def trained(ask: Ask) -> Trained:
    """Return the trained weights of a recipe with a `train` part; kept by the content of all it learned from.

    Raises:
        RecipeError: Data, model or settings do not fit each other, or the loss diverged.
        MissingError: The train extra is not installed.
        ResourceError: No space, or another run trains the same.
    """
    settings = ask.checked.recipe.train
    assert settings
    need_train()
    watcher().phase("training data")
    train, val = splits_of(ask, settings)
    source = start(ask, len(train.names))
    curve = curve_settings(ask)
    refuse_unlike(ask, source, train, curve)
    teacher = teacher_of(ask, train.names)
    inputs = {
        # Where a file lies and how many threads worked changes nothing that is learned.
        "source": {**vars(source), "path": "", "settings": {**source.settings, "weights": ""}},
        "settings": replace(settings, threads=0, teacher_weights=""), "names": list(train.names),
        "images": digests(train.samples), "labels": label_digest(train),
        "judged": [digests(val.samples), label_digest(val), side_of(ask, settings), metric_of(ask, train)],
        "teacher": teacher.sha256 if teacher else "", "sensor": train.sensor, "curve": curve, "code": versions.code(*ROOMS),
        "tools": versions.versions("torch", "ultralytics"),
    }  # fmt: skip
    work = ask.cache.root / "training" / digest_value(inputs)[:32]
    made = False

    def make(folder: Path) -> None:
        nonlocal made
        made = True
        watcher().phase("training")
        with resource_errors(work), locked(work, hint="Wait for it, or train elsewhere with --work-dir."):
            if not ask.cache.reuse:
                shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True, exist_ok=True)
            _train(ask, settings, source, teacher, (train, val), work, folder)

    folder = ask.cache.step("train", inputs, make)
    if made:
        # The checkpoints of a finished training are of no more use.
        shutil.rmtree(work, ignore_errors=True)
    record = json.loads((folder / RECORD).read_text())
    return Trained(weights=folder / WEIGHTS, record=record, fresh=made)


def need_train() -> None:
    """Refuse to train without the extra, before anything is read.

    Raises:
        MissingError: torch, ultralytics or safetensors is not installed.
    """
    for name in ("torch", "ultralytics", "safetensors"):
        if not have(name):
            raise MissingError(
                f"{name} is not installed, needed to train", hint="Run: pip install 'edgekit[train]'"
            )


def start(ask: Ask, classes: int) -> Source:
    """Return what training starts from: the architecture, with the recipe's weights where it names some.

    Raises:
        RecipeError: The model is not of the catalogue, or `nc` is not the data's number of classes.
    """
    part = ask.checked.recipe.model
    if part.nc not in {0, classes}:
        raise RecipeError(
            f"{ask.checked.path}: model.nc is {part.nc}, the data has {classes} classes", hint="Leave nc out."
        )
    weights = ask.checked.beside(part.weights) if part.weights else None
    source = find_by_name(part.name, weights=weights, options=part.options)
    if part.name.startswith(_END_TO_END):
        raise RecipeError(
            f"{ask.checked.path}: model.name: {part.name} is an end-to-end detector, which edgekit does not train",
            hint="Train it with ultralytics' own trainer and give the .pt.",
        )
    if source.kind == "onnx":
        raise RecipeError(
            f"{ask.checked.path}: model.name: {part.name} is trained already",
            hint=f"Name its architecture (`edgekit models show {part.name}`), and its weights to start from.",
        )
    return replace(source, settings={**source.settings, "nc": classes, "classes": [], "coding": None})


def curve_settings(ask: Ask) -> Any:
    """Return the settings of the recipe's gamma-quant, None where it has none."""
    return next((s.settings for s in ask.checked.steps if s.name == "gamma-quant"), None)


def refuse_unlike(ask: Ask, source: Source, train: Split, curve: Any) -> None:
    """Refuse what cannot be trained together: images behind a curve, raw values without one, boxes for a classifier.

    Raises:
        RecipeError: They do not go together.
    """
    where = ask.checked.path
    if curve and train.sensor is None:
        raise RecipeError(
            f"{where}: passes.gamma-quant: the data is no sensor's raw values",
            hint="Give data whose data.yaml has a `sensor:` part, or leave the pass out.",
        )
    if train.sensor and not curve:
        raise RecipeError(
            f"{where}: train: the data is a sensor's raw values",
            hint="Add gamma-quant to passes; `curve: none` keeps all bits.",
        )
    task = "classify" if source.kind in _CLASSIFIERS else "detect"
    if train.task != task:
        raise RecipeError(
            f"{where}: train: {source.what} is to {task}, the data is to {train.task}",
            hint="A folder a class is for classifiers, label files with boxes are for detectors.",
        )
    _refuse_shape(ask, source, train)
    if train.sensor and ask.checked.recipe.train and ask.checked.recipe.train.teacher:
        raise RecipeError(
            f"{where}: train.teacher: takes images, and this data is raw", hint="Leave the teacher out."
        )


def teacher_of(ask: Ask, names: Sequence[str]) -> Source | None:
    """Return the larger detector to learn from, None where the recipe names none.

    Args:
        ask: The training.
        names: Of the data's classes; empty where the data has not been read yet.

    Raises:
        RecipeError: It is missing, or was trained on other classes.
    """
    settings = ask.checked.recipe.train
    if settings is None or not settings.teacher:
        return None
    found = find_by_name(
        settings.teacher, weights=ask.checked.beside(settings.teacher_weights), nc=len(names)
    )
    known = tuple(found.settings.get("classes", ()))
    if names and known and known != tuple(names):
        raise RecipeError(
            f"train.teacher: its classes ({', '.join(known[:4])}, …) are not the data's ({', '.join(names[:4])}, …)",
            hint="Take a teacher that was trained on the same classes in the same order.",
        )
    return found


def _refuse_shape(ask: Ask, source: Source, train: Split) -> None:
    """Refuse a network for another kind of signal."""
    where, sensor = ask.checked.path, train.sensor
    if source.kind == "classifier" and sensor:
        raise RecipeError(
            f"{where}: train: {source.what} takes images, the data is a sensor's raw values",
            hint="Take a small classifier (`edgekit models list`), or pictures.",
        )
    if source.kind != "small":
        if sensor and not sensor.mosaic:
            raise RecipeError(
                f"{where}: train: {source.what} takes three colours, and the sensor has one plane",
                hint="Detectors are trained behind colour mosaics alone.",
            )
        return
    if sensor is None:
        raise RecipeError(
            f"{where}: train: {source.what} takes a sensor's values",
            hint="Write a `sensor:` part into the data.yaml, and add gamma-quant to passes.",
        )
    series = len(SMALL[source.what].usual) == 2
    if series != bool(sensor.axes):
        kinds = ("time series", "images") if series else ("images", "time series")
        raise RecipeError(
            f"{where}: train: {source.what} takes {kinds[0]}, the data is {kinds[1]}",
            hint="Take another model (`edgekit models list`), or correct `sensor.axes` in the data.yaml.",
        )


def splits_of(ask: Ask, settings: TrainPart) -> tuple[Split, Split]:
    """Return training images and those the epochs are judged on."""
    part, file = ask.checked.recipe.data, data_file(ask)
    path = drawn(ask.cache, file, quick=False, train=_scenes(settings)) if isinstance(file, str) else file
    images = str(ask.checked.beside(part.images)) if part.images else ""
    train = read_split(path, part.training, images=images)
    val = read_split(path, part.validation, images=images)
    same_kind(train, val, path)
    return train, replace(val, samples=val.samples[: settings.val_images])


def _scenes(settings: TrainPart) -> int:
    if not settings.limit:
        return _SCENES
    return -(-settings.limit // _TILES_A_SCENE) if settings.tile else settings.limit


def side_of(ask: Ask, settings: TrainPart) -> int:
    """Return the side at which epochs are judged: the recipe's own, so that --imgsz trains nothing anew."""
    return ask.checked.recipe.export.imgsz or settings.imgsz


def label_digest(split: Split) -> str:
    """Return a digest over the labels of a split."""
    return digest_value([[s.classes.tolist(), s.boxes.tolist(), s.crowd.tolist()] for s in split.samples])


def _train(
    ask: Ask, settings: TrainPart, source: Source, teacher: Source | None, splits: tuple[Split, Split],
    work: Path, out: Path,
) -> None:  # fmt: skip
    """Run the loop and write weights and record into `out`."""
    from edgekit.models.torch_models import build
    from edgekit.training.behind import behind, coded, unwrapped
    from edgekit.training.loop import Run
    from edgekit.training.schedule import curve_group, curve_rate
    from edgekit.training.start import begin, in_bf16

    train, val = splits
    metric, side, curve = metric_of(ask, train), side_of(ask, settings), curve_settings(ask)
    batches = batches_of(train, settings, side)
    if source.kind == "small":
        source = replace(source, settings={**source.settings, "shape": batches.shape})
    model, taken = begin(source, seed=settings.seed)
    if curve:
        assert train.sensor
        model = behind(curve, train.sensor, train.samples, model)
    bf16 = source.kind == "ultralytics" and in_bf16(settings.precision, ask.host.get("isa", []))
    run = Run(
        model=model, batches=batches, settings=settings, work=work, bf16=bf16,
        judge=judge_of(val, side, metric) if val.samples else None, teacher=build(teacher).module if teacher else None,
        apart=curve_group(model, curve_rate(settings, curve.lr)) if curve else (),
    )  # fmt: skip
    weights = within_memory(run)
    coding = coded(run.model, weights, side) if curve else None
    weights = unwrapped(weights) if curve else weights
    record = {
        "architecture": source.what, "options": source.settings["options"], "classes": list(train.names),
        "settings": asdict(settings), "data": ask.checked.recipe.data.path, "images": len(batches.places),
        "judged_on": len(val.samples), "judged_at": side, "metric": metric, "bf16": bf16,
        "shape": list(batches.shape) if source.kind == "small" else [], "coding": coding, "history": run.state.history, "best_epoch": run.state.best_epoch,
        "best": None if not val.samples else run.state.best, "taken_from_weights": taken,
        "machine": {k: ask.host[k] for k in ("cpu", "isa", "cores_physical", "memory_mb")},
        "tools": versions.versions("torch", "ultralytics", "numpy"),
    }  # fmt: skip
    write_json(out / RECORD, record)
    write_bytes(out / WEIGHTS, packed(weights, record))


def batches_of(train: Split, settings: TrainPart, side: int) -> Any:
    """Return the batches of a training: images with boxes, pictures, or a sensor's signals."""
    from edgekit.training.batches import Batches
    from edgekit.training.pictures import Pictures, pictures_of
    from edgekit.training.windows import Windows

    if train.task == "detect":
        return Batches(train.samples, settings, sensor=train.sensor)
    if train.sensor is None:
        few = train.samples[: settings.limit or None]
        return Pictures(*pictures_of(few, Frames(resize="crop"), (side, side)), settings)
    return Windows(train.samples, settings, train.sensor)


def judge_of(val: Split, side: int, metric: str) -> Callable[[Any], float]:
    """Return what judges a model on validation samples."""
    from edgekit.training.evaluate import classes_by, classes_of_pictures, found_by
    from edgekit.training.pictures import pictures_of

    sensor = val.sensor
    if val.task == "classify":
        labels = labels_of(val.samples)
        if sensor is None:
            images, _ = pictures_of(val.samples, Frames(resize="crop"), (side, side))
            return lambda model: class_scores(labels, classes_of_pictures(model, images), val.names).value(
                metric
            )
        return lambda model: class_scores(
            labels, classes_by(model, val.samples, sensor=sensor), val.names
        ).value(metric)
    truths = truths_of(val.samples, raw=sensor is not None)
    return lambda model: score(
        truths, found_by(model, val.samples, side=side, sensor=sensor), val.names
    ).value(metric)


def within_memory(run: Any) -> dict[str, Any]:
    """Return what a run learned.

    Raises:
        ResourceError: There is not enough memory for its batches.
    """
    try:
        found: dict[str, Any] = run.train()
    except RuntimeError as error:
        words = str(error).lower()
        if "out of memory" not in words and "can't allocate" not in words:
            raise
        raise ResourceError(
            f"train: not enough memory for batches of {run.settings.batch} at {run.settings.imgsz} px",
            hint="Lower train.batch or train.imgsz.",
        ) from error
    return found


def packed(weights: Mapping[str, Any], record: Mapping[str, Any]) -> bytes:
    """Return a safetensors file: floats in fp16, and in its header what the weights are.

    Args:
        weights: Tensors by name.
        record: Of the training: `architecture`, `classes`, `options` and whatever else.
    """
    torch = need("torch", extra="train")
    save = need("safetensors.torch", extra="train").save
    half = {k: v.half() if v.dtype == torch.float32 else v for k, v in weights.items()}
    short = {k: v for k, v in record.items() if k not in {"architecture", "classes", "options", "coding"}}
    words = {
        "architecture": str(record["architecture"]), "classes": json.dumps(list(record["classes"])),
        "options": json.dumps(record["options"], sort_keys=True),
        # Nets and loss of the small classifiers are our own: their weights belong to whoever trained them.
        "license": "" if record["architecture"] in SMALL or is_classifier(str(record["architecture"])) else _LICENCE,
        "record": json.dumps(short, sort_keys=True),
    }  # fmt: skip
    if record.get("coding"):
        words["coding"] = json.dumps(record["coding"], sort_keys=True)
    made: bytes = save({k: half[k].contiguous() for k in sorted(half)}, metadata=words)
    return made
