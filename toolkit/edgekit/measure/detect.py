"""Run a detector or classifier over samples by the code that an app runs, and carry what it found between processes."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.plugins import pick
from edgekit.core.records import Artifact
from edgekit.core.watch import steps
from edgekit.frames.coded import read_frame
from edgekit.frames.prepare import prepare

# Boxes (N, 4) float32, scores (N,) float32, classes (N,) int64 of one sample. Of a classifier the boxes are zeros, and
# every class has its row.
Row = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def detections(
    artifact: Artifact, files: Sequence[Path], *, score: float, limit: int, what: str
) -> list[Row]:
    """Return the detections, or the probabilities of all classes, of every sample.

    Only the thresholds differ from an app's, and every class counts that an anchor answers for, as mAP is
    defined.

    Args:
        artifact: A detector or classifier with declared pre-processing.
        files: Images or a sensor's signals.
        score: Detections below are dropped.
        limit: Detections kept of an image at most.
        what: Name of the step for whoever watches.
    """
    contract = artifact.contract
    assert contract.frames
    spec = dataclasses.replace(contract.answers, score=score, limit=limit)
    answers = pick("answers", spec.task, what="task")
    shape, name, rows = contract.inputs[0].shape, contract.inputs[0].name, []
    with pick("backends", artifact.backend, what="backend").open(artifact) as session:
        for path in steps(what, files, len(files)):
            frame = read_frame(path, contract.frames)
            tensor, place = prepare(frame, contract.frames, (shape[2], shape[3]))
            given = answers.answer(session.look({name: tensor}), spec, place, each_class=True)
            boxes = given.boxes if spec.task == "detect" else np.zeros((len(given), 4), np.float32)
            rows.append((boxes, given.scores, given.classes))
    return rows


def packed(rows: Sequence[Row]) -> bytes:
    """Return the detections of at least one image as a compressed file of arrays."""
    buffer = io.BytesIO()
    boxes, scores, classes = (np.concatenate(column) for column in zip(*rows, strict=True))
    counts = np.array([len(s) for _, s, _ in rows], np.int64)
    np.savez_compressed(buffer, counts=counts, boxes=boxes, scores=scores, classes=classes)
    return buffer.getvalue()


def unpacked(data: bytes) -> list[Row]:
    """Return the detections that `packed` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        cuts = np.cumsum(arrays["counts"])[:-1]
        boxes, scores, classes = (np.split(arrays[k], cuts) for k in ("boxes", "scores", "classes"))
    return list(zip(boxes, scores, classes, strict=True))
