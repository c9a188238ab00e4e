"""Run an artifact over labelled images and score its answers; each run is kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.core import versions
from edgekit.core.errors import RecipeError
from edgekit.core.outcome import Accuracy
from edgekit.core.records import Artifact
from edgekit.core.watch import watcher
from edgekit.data.dataset import pixel_boxes
from edgekit.data.sample import Sample, Split
from edgekit.forms.stored import restore, store
from edgekit.frames.images import read_image
from edgekit.frames.raw import read_signal
from edgekit.jobs.ask import Ask
from edgekit.jobs.data import Data
from edgekit.jobs.remote import Remote
from edgekit.jobs.trial import machine_key
from edgekit.jobs.variants import Lowered
from edgekit.measure.detect import Row, detections, packed, unpacked
from edgekit.metrics.classes import METRICS, ClassScores, class_scores
from edgekit.metrics.classes import drop_interval as class_interval
from edgekit.metrics.coco_map import LIMIT, SCORE, Found, Scores, Truth, drop_interval, score

_METRICS = {"detect": ("map50", "map50_95"), "classify": METRICS}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Scores of one artifact on one group of images, with the detections they came from."""

    scores: Scores | ClassScores
    found: tuple[Found, ...]
    digest: str


def detections_of(artifact: Artifact, samples: Sequence[Sample], *, what: str) -> list[Found]:
    """Return the detections of every sample: score from 0.001, 300 an image, as mAP is defined.

    Args:
        artifact: A detector.
        samples: Labelled images.
        what: Name of the step for whoever watches.
    """
    files = [s.path for s in samples]
    return _as_found(detections(artifact, files, score=SCORE, limit=LIMIT, what=what))


def _as_found(rows: Sequence[Row]) -> list[Found]:
    return [Found(boxes=b, scores=s, classes=c) for b, s, c in rows]


def metric_of(ask: Ask, data: Data | Split) -> str:
    """Return the metric the recipe names, or the usual one of the data's task.

    Raises:
        RecipeError: It is one of another task.
    """
    named, own = ask.checked.recipe.data.metric, _METRICS[data.task]
    if named and named not in own:
        raise RecipeError(
            f"{ask.checked.path}: data.metric: {named} does not go with data to {data.task}",
            hint=f"Take {' or '.join(own)}.",
        )
    return named or own[0]


def truths_of(samples: Sequence[Sample], *, raw: bool = False) -> list[Truth]:
    """Return the labels of every sample in pixels of its image.

    Args:
        samples: Labelled images.
        raw: Whether they are a sensor's own values.

    Raises:
        RecipeError: An image cannot be read.
    """
    truths = []
    for sample in samples:
        height, width = (read_signal if raw else read_image)(sample.path).shape[:2]
        truths.append(
            Truth(
                width=width, height=height, boxes=pixel_boxes(sample, width, height),
                classes=sample.classes, crowd=sample.crowd,
            )
        )  # fmt: skip
    return truths


def judged(
    ask: Ask, lowered: Lowered, samples: Sequence[Sample], names: Sequence[str], *, digest: str, where: str,
    board: Remote | None = None,
) -> Judged:  # fmt: skip
    """Return scores and detections of a variant on labelled images.

    Args:
        ask: The compile.
        lowered: The variant.
        samples: Labelled images.
        names: Class names.
        digest: SHA-256 over the samples.
        where: What the images are for, for whoever watches.
        board: Where it runs; None for this machine.
    """
    inputs = {
        "variant": lowered.digest, "samples": digest, "code": versions.code(), "isa": (ask.passport if board else ask.host).get("isa"), "on": machine_key(ask) if board else "",
        "tools": versions.versions("pycocotools", lowered.wanted.backend), "names": list(names), "bands": ask.checked.recipe.data.bands,
    }  # fmt: skip

    def make(folder: Path) -> None:
        if board:
            watcher().phase(f"{where} on {board.name}: {lowered.wanted.plain}")
            found = _as_found(board.detections(lowered.artifact, [s.path for s in samples]))
        else:
            found = detections_of(lowered.artifact, samples, what=f"{where}: {lowered.wanted.plain}")
        (folder / "found.npz").write_bytes(packed([(f.boxes, f.scores, f.classes) for f in found]))
        store(folder / "scores.json", _scored(ask, lowered.artifact, samples, found, names))

    folder = ask.cache.step("accuracy", inputs, make)
    classes = lowered.artifact.contract.answers.task == "classify"
    scores: Scores | ClassScores = (
        restore(folder / "scores.json", ClassScores) if classes else restore(folder / "scores.json", Scores)
    )
    found = tuple(_as_found(unpacked((folder / "found.npz").read_bytes())))
    return Judged(scores=scores, found=found, digest=folder.name)


def _scored(
    ask: Ask, artifact: Artifact, samples: Sequence[Sample], found: Sequence[Found], names: Sequence[str]
) -> Scores | ClassScores:
    contract = artifact.contract
    if contract.answers.task == "classify":
        return class_scores(labels_of(samples), _table(found), names)
    raw = contract.frames is not None and contract.frames.coding is not None
    return score(truths_of(samples, raw=raw), found, names, bands=ask.checked.recipe.data.bands)


def labels_of(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Return the one class of every sample."""
    return np.array([int(s.classes[0]) for s in samples])


def _table(found: Sequence[Found]) -> NDArray[np.float32]:
    """Return the probabilities (samples, classes) of rows that are sorted by them."""
    table = np.zeros((len(found), len(found[0].scores)), np.float32)
    for row, one in zip(table, found, strict=True):
        row[one.classes] = one.scores
    return table


def accuracy_of(
    ask: Ask, data: Data, lowered: Lowered, reference: Lowered | None, *, simulated: bool
) -> Accuracy:
    """Return the accuracy of a variant on the validation images, with its drop against the reference."""
    metric = metric_of(ask, data)
    where = ask.where if ask.here else f"{lowered.wanted.backend} on this {ask.host['arch']} host"
    if simulated:
        where = "a simulation on this host (onnxruntime runs the file that TensorRT reads)"
    own = judged(
        ask,
        lowered,
        data.validation,
        data.names,
        digest=data.validation_digest,
        where="accuracy",
        board=ask.board,
    )
    value = own.scores.value(metric)
    drop, interval = None, None
    if reference:
        other = judged(
            ask,
            reference,
            data.validation,
            data.names,
            digest=data.validation_digest,
            where="accuracy",
            board=ask.board,
        )
        drop = other.scores.value(metric) - value
        interval = _interval(ask, data, other, own, metric)
    return Accuracy(
        metric=metric, value=value, drop=drop, interval=interval,
        scores={name: own.scores.value(name) for name in _METRICS[data.task]},
        by_class=own.scores.by_class, by_size=own.scores.by_size if isinstance(own.scores, Scores) else {}, images=own.scores.images,
        where=where, simulated=simulated,
    )  # fmt: skip


def _interval(ask: Ask, data: Data, reference: Judged, own: Judged, metric: str) -> tuple[float, float]:
    inputs = {"pair": [reference.digest, own.digest], "metric": metric, "code": versions.code()}

    def make(folder: Path) -> None:
        if data.task == "classify":
            tables = (_table(reference.found), _table(own.found))
            found = class_interval(labels_of(data.validation), *tables, metric=metric)
        else:
            truths = truths_of(data.validation, raw=data.sensor is not None)
            found = drop_interval(truths, reference.found, own.found, len(data.names), metric=metric)
        store(folder / "interval.json", list(found))

    low, high = restore(ask.cache.step("interval", inputs, make) / "interval.json", list[float])
    return low, high
