"""Score a torch detector on labelled images, as the verdict of a compile does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from edgekit.answers.detect import Detect
from edgekit.core.records import Answers, Frames
from edgekit.data.dataset import pixel_boxes
from edgekit.data.sample import Sample
from edgekit.frames.images import read_image
from edgekit.frames.prepare import prepare
from edgekit.metrics.coco_map import LIMIT, SCORE, Found, Scores, Truth, score

_IOU = 0.7


def scores_of(
    model: Any, samples: Sequence[Sample], names: Sequence[str], *, side: int, bands: Sequence[float]
) -> Scores:
    """Return average precision of a detection model in eval mode; arguments as of `found_by`.

    Args:
        model: The model.
        samples: Labelled images.
        names: Class names.
        side: Of the square input in pixels.
        bands: Object sizes at which AP is split.
    """
    truths, found = found_by(model, samples, names, side=side)
    return score(truths, found, names, bands=bands)


@torch.no_grad()
def found_by(
    model: Any, samples: Sequence[Sample], names: Sequence[str], *, side: int
) -> tuple[list[Truth], list[Found]]:
    """Return labels and detections of every sample, decoded as an app decodes them.

    Args:
        model: In eval mode; gives (1, 4 + classes, anchors), alone or first of a tuple.
        samples: Labelled images.
        names: Class names.
        side: Of the square input in pixels.
    """
    device = next(model.parameters()).device
    spec = Answers(task="detect", layout="yolov8", classes=tuple(names), score=SCORE, iou=_IOU, limit=LIMIT)
    truths, found = [], []
    for sample in samples:
        frame = read_image(sample.path)
        tensor, place = prepare(frame, Frames(), (side, side))
        given = model(torch.from_numpy(tensor).to(device, memory_format=torch.channels_last))
        output = given[0] if isinstance(given, tuple) else given
        one = Detect().answer({"output": output.cpu().numpy()}, spec, place, each_class=True)
        height, width = frame.shape[:2]
        boxes = pixel_boxes(sample, width, height)
        truths.append(
            Truth(width=width, height=height, boxes=boxes, classes=sample.classes, crowd=sample.crowd)
        )
        found.append(Found(boxes=one.boxes, scores=one.scores, classes=one.classes))
    return truths, found
