"""mAP and its bootstrap, against cases known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.metrics.coco_map import Found, Truth, drop_interval, score

pytestmark = pytest.mark.light


def truth(boxes: list[list[float]], classes: list[int]) -> Truth:
    count = len(boxes)
    return Truth(
        width=100,
        height=100,
        boxes=np.array(boxes, float).reshape(-1, 4),
        classes=np.array(classes, int),
        crowd=np.zeros(count, bool),
    )


def found(boxes: list[list[float]], classes: list[int], scores: list[float]) -> Found:
    return Found(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        classes=np.array(classes, int),
    )


BOXES = [[10, 10, 20, 20], [40, 40, 60, 60]]


def test_perfect_detections_score_one_in_every_band():
    scores = score([truth(BOXES, [0, 1])], [found(BOXES, [0, 1], [0.9, 0.8])], ["a", "b"])
    assert (scores.map50, scores.map50_95) == pytest.approx((1.0, 1.0))
    assert scores.by_class == pytest.approx({"a": 1.0, "b": 1.0})
    assert (scores.by_size["8-16"], scores.by_size["16-32"]) == pytest.approx((1.0, 1.0))


def test_a_missed_class_halves_the_mean():
    assert score([truth(BOXES, [0, 1])], [found(BOXES[:1], [0], [0.9])], ["a", "b"]).map50 == pytest.approx(
        0.5
    )


def test_a_false_alarm_above_a_hit_halves_precision():
    answers = found([[70, 70, 90, 90], BOXES[0]], [0, 0], [0.9, 0.5])
    assert score([truth(BOXES[:1], [0])], [answers], ["a"]).map50 == pytest.approx(0.5)


def test_nothing_found_scores_zero():
    assert score([truth(BOXES, [0, 1])], [found([], [], [])], ["a", "b"]).map50 == 0.0


def test_three_hundred_detections_an_image_count():
    corner = np.stack(np.meshgrid(np.arange(15), np.arange(10)), -1).reshape(-1, 2) * 6.0
    boxes = np.hstack([corner, corner + 4]).tolist()
    answers = found(boxes, [0] * 150, np.linspace(0.9, 0.1, 150).tolist())
    assert score([truth(boxes, [0] * 150)], [answers], ["a"]).map50 == pytest.approx(1.0)


def test_the_bootstraps_own_average_precision_is_pycocotools():
    rng = np.random.default_rng(4)
    truths, answers = [], []
    for _ in range(30):
        corner = rng.uniform(0, 80, (6, 2))
        boxes = np.hstack([corner, corner + rng.uniform(6, 18, (6, 2))])
        truths.append(truth(boxes.tolist(), rng.integers(0, 2, 6).tolist()))
        moved = boxes + rng.normal(0, 2.5, boxes.shape)
        answers.append(found(moved.tolist(), truths[-1].classes.tolist(), rng.uniform(0.1, 1, 6).tolist()))
    from edgekit.metrics import coco_map

    judged = coco_map.evaluate(truths, answers, 2)
    for metric in ("map50", "map50_95"):
        tables = coco_map._tables(judged, 2, metric)
        ours = coco_map._resampled(tables, np.ones(30, int))
        assert ours == pytest.approx(score(truths, answers, ["a", "b"]).value(metric), abs=1e-9)
        # An image drawn twice counts as two equal images.
        twice = np.ones(30, int)
        twice[7] = 2
        doubled = score([*truths, truths[7]], [*answers, answers[7]], ["a", "b"]).value(metric)
        assert coco_map._resampled(tables, twice) == pytest.approx(doubled, abs=1e-9)


def test_matching_is_pycocotools_to_the_bit():
    from pycocotools.cocoeval import COCOeval

    from edgekit.metrics import coco_map

    rng = np.random.default_rng(9)
    truths, answers = [], []
    for k in range(60):
        count = int(rng.integers(0, 9))
        corner = rng.uniform(0, 60, (count, 2))
        boxes = np.hstack([corner, corner + rng.uniform(4, 40, (count, 2))])
        one = truth(boxes.tolist(), rng.integers(0, 3, count).tolist())
        one.crowd[:] = rng.random(count) < 0.2
        truths.append(one)
        # Near, doubled, equal in score and far away.
        moved = np.vstack(
            [boxes + rng.normal(0, s, boxes.shape) for s in (0, 1, 4)] + [rng.uniform(0, 90, (12, 4))]
        )
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        classes = np.concatenate([np.tile(one.classes, 3), rng.integers(0, 3, 12)])
        scores = np.round(rng.uniform(0, 1, len(moved)), 1)
        if k % 7:
            answers.append(found(moved.tolist(), classes.tolist(), scores.tolist()))
        else:
            answers.append(found([], [], []))
    bands = ((0.0, 8.0), (8.0, 16.0), (16.0, 1e5))
    ours = coco_map.evaluate(truths, answers, 3, bands=bands)
    theirs = COCOeval(ours.cocoGt, ours.cocoDt, "bbox")
    theirs.params.maxDets, theirs.params.areaRng = ours.params.maxDets, ours.params.areaRng
    theirs.params.areaRngLbl = ours.params.areaRngLbl
    theirs.evaluate()
    theirs.accumulate()
    for word in ("precision", "recall", "scores"):
        assert np.array_equal(ours.eval[word], theirs.eval[word]), word
    for one, other in zip(ours.evalImgs, theirs.evalImgs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert np.array_equal(one["dtMatches"], other["dtMatches"])
            assert np.array_equal(one["dtIgnore"], other["dtIgnore"])


def test_equal_detections_have_no_drop_and_worse_ones_one():
    truths = [truth(BOXES, [0, 1]) for _ in range(10)]
    good = [found(BOXES, [0, 1], [0.9, 0.8]) for _ in range(10)]
    bad = [found(BOXES[:1], [0], [0.9]) for _ in range(10)]
    assert drop_interval(truths, good, good, 2, rounds=20) == (0.0, 0.0)
    low, high = drop_interval(truths, good, bad, 2, rounds=20)
    assert low == high == pytest.approx(0.5)
