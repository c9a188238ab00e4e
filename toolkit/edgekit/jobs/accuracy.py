"""Run an artifact over labelled images and score its answers; each run is kept in the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.core import versions
from edgekit.core.outcome import Accuracy
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact
from edgekit.core.watch import steps, watcher
from edgekit.data.dataset import pixel_boxes
from edgekit.data.sample import Sample
from edgekit.forms.stored import restore, store
from edgekit.frames.images import read_image
from edgekit.frames.prepare import prepare
from edgekit.jobs.ask import Ask
from edgekit.jobs.data import Data
from edgekit.jobs.trial import machine_key
from edgekit.jobs.variants import Lowered
from edgekit.metrics.coco_map import LIMIT, SCORE, Found, Scores, Truth, drop_interval, score


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Scores of one artifact on one group of images, with the detections they came from."""

    scores: Scores
    found: tuple[Found, ...]
    digest: str


def detections_of(artifact: Artifact, samples: Sequence[Sample], *, what: str) -> list[Found]:
    """Return the detections of every sample, by the same code that an app runs.

    Only the thresholds differ from an app's: score from 0.001, 300 an image, every class an anchor
    answers for, as mAP is defined.

    Args:
        artifact: A detector.
        samples: Labelled images.
        what: Name of the step for whoever watches.
    """
    contract = artifact.contract
    assert contract.frames
    spec = dataclasses.replace(contract.answers, score=SCORE, limit=LIMIT)
    answers = pick("answers", "detect", what="task")
    shape = contract.inputs[0].shape
    name, size = contract.inputs[0].name, (shape[2], shape[3])
    found = []
    with pick("backends", artifact.backend, what="backend").open(artifact) as session:
        for sample in steps(what, samples, len(samples)):
            tensor, place = prepare(read_image(sample.path), contract.frames, size)
            given = answers.answer(session.look({name: tensor}), spec, place, each_class=True)
            found.append(Found(boxes=given.boxes, scores=given.scores, classes=given.classes))
    return found


def truths_of(samples: Sequence[Sample]) -> list[Truth]:
    """Return the labels of every sample in pixels of its image.

    Raises:
        RecipeError: An image cannot be read.
    """
    truths = []
    for sample in samples:
        height, width = read_image(sample.path).shape[:2]
        truths.append(
            Truth(
                width=width, height=height, boxes=pixel_boxes(sample, width, height),
                classes=sample.classes, crowd=sample.crowd,
            )
        )  # fmt: skip
    return truths


def judged(
    ask: Ask, lowered: Lowered, samples: Sequence[Sample], names: Sequence[str], *, digest: str, where: str
) -> Judged:
    """Return scores and detections of a variant on labelled images.

    Args:
        ask: The compile.
        lowered: The variant.
        samples: Labelled images.
        names: Class names.
        digest: SHA-256 over the samples.
        where: What the images are for, for whoever watches.
    """
    # A guard tries dozens of plans: it runs here, where only its order of layers matters.
    board = ask.board if where == "accuracy" else None
    inputs = {
        "variant": lowered.digest, "samples": digest, "code": versions.code(), "isa": (ask.passport if board else ask.host).get("isa"), "on": machine_key(ask) if board else "",
        "tools": versions.versions("pycocotools", lowered.wanted.backend), "names": list(names), "bands": ask.checked.recipe.data.bands,
    }  # fmt: skip

    def make(folder: Path) -> None:
        if board:
            watcher().phase(f"{where} on {board.name}: {lowered.wanted.plain}")
            found = board.detections(lowered.artifact, [s.path for s in samples])
        else:
            found = detections_of(lowered.artifact, samples, what=f"{where}: {lowered.wanted.plain}")
        _keep(folder / "found.npz", found)
        store(
            folder / "scores.json",
            score(truths_of(samples), found, names, bands=ask.checked.recipe.data.bands),
        )

    folder = ask.cache.step("accuracy", inputs, make)
    scores = restore(folder / "scores.json", Scores)
    return Judged(scores=scores, found=_kept(folder / "found.npz"), digest=folder.name)


def _keep(path: Path, found: Sequence[Found]) -> None:
    counts = np.array([len(f.scores) for f in found], np.int64)
    np.savez(
        path, counts=counts, boxes=np.concatenate([f.boxes for f in found]),
        scores=np.concatenate([f.scores for f in found]), classes=np.concatenate([f.classes for f in found]),
    )  # fmt: skip


def _kept(path: Path) -> tuple[Found, ...]:
    with np.load(path, allow_pickle=False) as data:
        cuts = np.cumsum(data["counts"])[:-1]
        groups = [np.split(data[key], cuts) for key in ("boxes", "scores", "classes")]
    return tuple(Found(boxes=b, scores=s, classes=c) for b, s, c in zip(*groups, strict=True))


def accuracy_of(
    ask: Ask, data: Data, lowered: Lowered, reference: Lowered | None, *, simulated: bool
) -> Accuracy:
    """Return the accuracy of a variant on the validation images, with its drop against the reference."""
    metric = ask.checked.recipe.data.metric
    where = ask.where if ask.here else f"{lowered.wanted.backend} on this {ask.host['arch']} host"
    if simulated:
        where = "a simulation on this host (openvino, symmetric int8)"
    own = judged(ask, lowered, data.validation, data.names, digest=data.validation_digest, where="accuracy")
    value = own.scores.value(metric)
    drop, interval = None, None
    if reference:
        other = judged(
            ask, reference, data.validation, data.names, digest=data.validation_digest, where="accuracy"
        )
        drop = other.scores.value(metric) - value
        interval = _interval(ask, data, other, own, metric)
    return Accuracy(
        metric=metric, value=value, drop=drop, interval=interval,
        scores={"map50": own.scores.map50, "map50_95": own.scores.map50_95},
        by_class=own.scores.by_class, by_size=own.scores.by_size, images=own.scores.images,
        where=where, simulated=simulated,
    )  # fmt: skip


def _interval(ask: Ask, data: Data, reference: Judged, own: Judged, metric: str) -> tuple[float, float]:
    inputs = {"pair": [reference.digest, own.digest], "metric": metric, "code": versions.code()}

    def make(folder: Path) -> None:
        truths = truths_of(data.validation)
        found = drop_interval(truths, reference.found, own.found, len(data.names), metric=metric)
        store(folder / "interval.json", list(found))

    low, high = restore(ask.cache.step("interval", inputs, make) / "interval.json", list[float])
    return low, high
