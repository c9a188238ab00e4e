"""G9: on digits in the dark a learned curve of 4 bits does what 12 bits do, and a linear one does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.data.dataset import read_split
from edgekit.data.make import make_set
from edgekit.metrics.classes import class_scores
from edgekit.models.small import build_small
from edgekit.training.behind import starts
from edgekit.training.curve import Curve, Sensed
from edgekit.training.evaluate import classes_by
from edgekit.training.loop import Run
from edgekit.training.schedule import curve_group
from edgekit.training.settings import TrainPart
from edgekit.training.windows import Windows

pytestmark = pytest.mark.slow

SETTINGS = TrainPart(
    epochs=8, batch=32, optimizer="adamw", lr=3e-3, momentum=0.9, schedule="cosine", warmup_epochs=1, average=0,
    weight_decay=1e-4, val_images=0, threads=1,
)  # fmt: skip
ARMS = {
    "linear 12": {"curve": "none"}, "log 12": {"curve": "log", "bits": 12}, "linear 4": {"curve": "linear"},
    "learned 4": {"mode": "paper"}, "learned 4 with gain": {"mode": "gain"},
}  # fmt: skip


def test_four_learned_bits_are_as_good_as_twelve(tmp_path: Path):
    data = make_set("digits-dark", tmp_path / "digits", train=1945, val=500)
    train, val = read_split(data, "train"), read_split(data, "val")
    assert train.sensor
    truth = np.array([int(s.classes[0]) for s in val.samples])
    found = {}
    for name, words in ARMS.items():
        torch.manual_seed(0)
        front = Curve(train.sensor, samples=starts(train.samples, train.sensor), **words)
        batches = Windows(train.samples, SETTINGS, train.sensor)
        model = Sensed(front, build_small("digits-cnn", shape=batches.shape, nc=10))
        work = tmp_path / name
        work.mkdir()
        model.load_state_dict(
            Run(
                model=model, batches=batches, settings=SETTINGS, work=work, apart=curve_group(model, 3.0)
            ).train()
        )
        found[name] = class_scores(
            truth, classes_by(model.eval(), val.samples, sensor=train.sensor), val.names
        ).top1
    assert found["learned 4"] >= found["linear 4"] + 0.40, found
    assert found["learned 4"] >= found["linear 12"] - 0.01, found
    assert found["learned 4 with gain"] >= found["log 12"] - 0.015, found
