"""Run a torch network over labelled samples, its outputs read as an app reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekit.answers.detect import Detect
from edgekit.codecs.sensor import Sensor
from edgekit.core.records import Answers, Frames
from edgekit.data.sample import Sample
from edgekit.frames.coded import place_of
from edgekit.frames.images import read_image
from edgekit.frames.place import Placement
from edgekit.frames.prepare import prepare
from edgekit.frames.raw import fitted_planes, sensor_planes
from edgekit.metrics.coco_map import LIMIT, SCORE, Found
from edgekit.training.windows import signals_of

_AT_ONCE = 256


@torch.no_grad()
def found_by(
    model: Any, samples: Sequence[Sample], *, side: int, sensor: Sensor | None = None
) -> list[Found]:
    """Return the detections of every sample, thresholds as mAP is defined.

    Args:
        model: In eval mode; gives (1, 4 + classes, anchors), alone or first of a tuple.
        samples: Labelled images.
        side: Of the square input in pixels.
        sensor: What recorded the samples, where they are a sensor's values; the model then takes its planes.
    """
    device = next(model.parameters()).device
    spec = Answers(task="detect", layout="yolov8", score=SCORE, limit=LIMIT)
    found = []
    for sample in samples:
        tensor, place = (
            planes_in(sample, sensor, side)
            if sensor
            else prepare(read_image(sample.path), Frames(), (side, side))
        )
        given = model(torch.from_numpy(tensor).to(device, memory_format=torch.channels_last))
        output = given[0] if isinstance(given, tuple) else given
        one = Detect().answer({"output": output.cpu().numpy()}, spec, place, each_class=True)
        found.append(Found(boxes=one.boxes, scores=one.scores, classes=one.classes))
    return found


def planes_in(sample: Sample, sensor: Sensor, side: int) -> tuple[NDArray[np.int32], Placement]:
    """Return a raw image as planes (1, C, side, side), and where it stands in them."""
    planes = sensor_planes(sample.path, sensor)
    fit, scale, left, top = fitted_planes(planes, (side, side), sensor.black)
    place = place_of(sensor, planes.shape[1:], scale, left, top)
    return fit.astype(np.int32)[None], place


def classes_by(model: Any, samples: Sequence[Sample], *, sensor: Sensor) -> NDArray[np.float32]:
    """Return the logits (N, classes) of a classifier behind a sensor's curve, for every sample."""
    return _logits(
        model,
        (
            signals_of([s.path for s in samples[k : k + _AT_ONCE]], sensor)
            for k in range(0, len(samples), _AT_ONCE)
        ),
    )


def classes_of_pictures(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits (N, classes) of a classifier for images (N, 3, H, W), as `pictures_of` gives them."""
    return _logits(
        model, (images[k : k + _AT_ONCE] / np.float32(255) for k in range(0, len(images), _AT_ONCE))
    )


@torch.no_grad()
def _logits(model: Any, groups: Iterable[NDArray[Any]]) -> NDArray[np.float32]:
    device = next(model.parameters()).device
    return np.concatenate([model(torch.from_numpy(g).to(device)).float().cpu().numpy() for g in groups])
