"""Run an artifact over labelled images and score its answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgekit.core.plugins import pick
from edgekit.core.records import Artifact
from edgekit.core.watch import steps
from edgekit.data.dataset import pixel_boxes
from edgekit.data.sample import Sample
from edgekit.frames.images import read_image
from edgekit.frames.prepare import prepare
from edgekit.metrics.coco_map import LIMIT, SCORE, Found, Truth


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
            given = answers.answer(session.infer({name: tensor}), spec, place, each_class=True)
            found.append(Found(boxes=given.boxes, scores=given.scores, classes=given.classes))
    return found


def truths_of(samples: Sequence[Sample]) -> list[Truth]:
    """Return the labels of every sample in pixels of its image.

    Raises:
        RecipeError: An image cannot be read.
    """
    truths = []
    for sample in steps("reading labels", samples, len(samples)):
        height, width = read_image(sample.path).shape[:2]
        truths.append(
            Truth(
                width=width, height=height, boxes=pixel_boxes(sample, width, height),
                classes=sample.classes, crowd=sample.crowd,
            )
        )  # fmt: skip
    return truths
