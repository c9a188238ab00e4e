"""Run a torch detector over labelled images, decoded as an app decodes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from edgekit.answers.detect import Detect
from edgekit.core.records import Answers, Frames
from edgekit.data.sample import Sample
from edgekit.frames.images import read_image
from edgekit.frames.prepare import prepare
from edgekit.metrics.coco_map import LIMIT, SCORE, Found


@torch.no_grad()
def found_by(model: Any, samples: Sequence[Sample], *, side: int) -> list[Found]:
    """Return the detections of every sample, thresholds as mAP is defined.

    Args:
        model: In eval mode; gives (1, 4 + classes, anchors), alone or first of a tuple.
        samples: Labelled images.
        side: Of the square input in pixels.
    """
    device = next(model.parameters()).device
    spec = Answers(task="detect", layout="yolov8", score=SCORE, limit=LIMIT)
    found = []
    for sample in samples:
        tensor, place = prepare(read_image(sample.path), Frames(), (side, side))
        given = model(torch.from_numpy(tensor).to(device, memory_format=torch.channels_last))
        output = given[0] if isinstance(given, tuple) else given
        one = Detect().answer({"output": output.cpu().numpy()}, spec, place, each_class=True)
        found.append(Found(boxes=one.boxes, scores=one.scores, classes=one.classes))
    return found
