"""Outputs to answers: decoding, suppression, ranking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.answers.classify import Classify
from edgekit.answers.detect import Detect, nms
from edgekit.core.errors import RecipeError
from edgekit.core.records import Answers
from edgekit.frames.place import Placement

pytestmark = pytest.mark.light
WHOLE = Placement(scale_x=1, scale_y=1, left=0, top=0, width=100, height=100)


def by_hand(boxes: np.ndarray, labels: np.ndarray, iou: float) -> list[int]:
    """Greedy suppression written as it is defined, one pair at a time."""
    kept: list[int] = []
    for i, a in enumerate(boxes):
        clear = True
        for j in kept:
            b = boxes[j]
            w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
            clear = clear and not (labels[i] == labels[j] and w * h > iou * union)
        if clear:
            kept.append(i)
    return kept


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 999), iou=st.sampled_from([0.3, 0.5, 0.7]))
def test_suppression_is_the_greedy_one_within_each_class(count: int, seed: int, iou: float):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 50, (count, 2))
    boxes = np.hstack([corner, corner + rng.integers(5, 40, (count, 2))]).astype(np.float32)
    labels = rng.integers(0, 3, count)
    assert nms(boxes, labels, iou, 300).tolist() == by_hand(boxes, labels, iou)


def test_suppression_agrees_with_torchvision():
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    import torch

    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 600, (500, 2))
    boxes = np.hstack([corner, corner + rng.uniform(5, 60, (500, 2))]).astype(np.float32)
    labels, scores = rng.integers(0, 4, 500), np.sort(rng.uniform(size=500))[::-1].astype(np.float32).copy()
    theirs = torchvision.ops.batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), 0.6)
    assert nms(boxes, labels, 0.6, 300).tolist() == theirs.tolist()[:300]


def raw(*columns: list[float]) -> dict[str, np.ndarray]:
    return {"output0": np.array(columns, np.float32).T[None]}


def test_a_yolov8_output_becomes_corner_boxes_best_first():
    spec = Answers(task="detect", layout="yolov8", classes=("a", "b"), score=0.3, iou=0.5)
    found = Detect().answer(
        raw([20, 20, 10, 10, 0.4, 0.1], [60, 60, 20, 10, 0.2, 0.9], [5, 5, 2, 2, 0.1, 0.1]), spec, WHOLE
    )
    np.testing.assert_allclose(found.boxes, [[50, 55, 70, 65], [15, 15, 25, 25]])
    assert found.classes.tolist() == [1, 0]
    assert found.plain()[0]["name"] == "b"


def test_one_anchor_answers_for_several_classes_only_where_asked():
    spec = Answers(task="detect", layout="yolov8", score=0.3)
    output = raw([20, 20, 10, 10, 0.4, 0.5])
    assert len(Detect().answer(output, spec, WHOLE)) == 1
    assert len(Detect().answer(output, spec, WHOLE, each_class=True)) == 2


def test_an_end_to_end_output_is_taken_as_it_is():
    spec = Answers(task="detect", layout="end-to-end", score=0.3)
    rows = np.array([[[1, 2, 3, 4, 0.2, 0], [5, 6, 7, 8, 0.9, 1]]], np.float32)
    found = Detect().answer({"o": rows}, spec, WHOLE)
    assert found.boxes.tolist() == [[5, 6, 7, 8]]


def test_nothing_found_is_an_empty_answer():
    found = Detect().answer(raw([1, 1, 1, 1, 0.0]), Answers(task="detect", layout="yolov8"), WHOLE)
    assert (len(found), found.boxes.shape, found.plain()) == (0, (0, 4), [])


def test_another_shape_is_refused():
    with pytest.raises(RecipeError, match="4 . classes"):
        Detect().answer({"o": np.zeros((2, 3), np.float32)}, Answers(task="detect", layout="yolov8"), WHOLE)


def test_logits_pass_a_softmax_and_probabilities_do_not():
    spec = Answers(task="classify", classes=("a", "b", "c"))
    logits = Classify().answer({"o": np.array([[1.0, 3.0, 2.0]], np.float32)}, spec, WHOLE)
    assert logits.classes.tolist() == [1, 2, 0]
    assert float(logits.scores[0]) == pytest.approx(np.exp(3) / np.exp([1, 3, 2]).sum(), rel=1e-5)
    ready = Classify().answer({"o": np.array([[0.2, 0.7, 0.1]], np.float32)}, spec, WHOLE)
    assert float(ready.scores[0]) == pytest.approx(0.7)
