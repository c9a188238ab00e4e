"""What progressive loading's terms are worth: digits learned with all of them, and without those that align."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from edgekit.models.classifiers import build_classifier
from edgekit.models.staged import staged
from edgekit.training.distillation.criterion import Distilled
from edgekit.training.distillation.masks import prefix_masks
from edgekit.training.distillation.pair import Pair
from edgekit.training.distillation.tasks import Classes
from edgekit.training.loop import Run
from edgekit.training.pictures import Pictures
from edgekit.training.settings import TrainPart
from edgekit.training.terms.protocol import Weights

pytestmark = pytest.mark.slow

SHAPE = (3, 8, 8)
# Steps of one student's path scatter by 2 points; whether they fall is asked of a mean, as in the tables of the guide.
SEEDS = (1, 2, 3)
SETTINGS = TrainPart(
    epochs=25, imgsz=8, batch=64, lr=0.05, final_lr=0.02, schedule="cosine", warmup_epochs=1, momentum=0.9,
    average=0.0, shift=0.125, fliplr=0.0, optimizer="sgd", val_images=0, seed=0, threads=1,
)  # fmt: skip


def pictures() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return scikit-learn's digits to learn from and to judge on: (N, 3, 8, 8) uint8 and classes, each seen twice.

    Grey, under noise, with a square of 2 x 2 pixels taken out: a student of a thirtieth of the weights is to be
    seen beside its teacher.
    """
    found, rng = load_digits(), np.random.default_rng(0)

    def seen(part: slice) -> tuple[np.ndarray, np.ndarray]:
        images = np.tile(found.images[part] / 16, (2, 1, 1))
        images = images + rng.normal(0, 0.2, images.shape)
        for image, (y, x) in zip(images, rng.integers(0, 7, (len(images), 2)), strict=True):
            image[y : y + 2, x : x + 2] = 0
        grey = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
        return np.repeat(grey[:, None], 3, axis=1), np.tile(found.target[part], 2).astype(np.int64)

    return seen(slice(1200)), seen(slice(1200, None))


def net(widths: list[int], depth: int, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_classifier(
        "resnet", nc=10, options={"widths": widths, "depths": [depth] * 4, "stem": "small"}
    )


def shares(pair: Pair, seen: torch.Tensor, truth: torch.Tensor) -> list[float]:
    """Return top-1 in percent of every step."""
    pair.eval()
    with torch.no_grad():
        rows = [pair.mixed(seen, m).argmax(1) == truth for m in prefix_masks(pair.stages)]
    return [100 * float(r.float().mean()) for r in rows]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Accuracy of every step: the mean of students with all terms, and one with labels and teacher alone."""
    torch.set_num_threads(1)
    train, (images, classes) = pictures()
    batches = Pictures(*train, SETTINGS)
    seen, truth = torch.from_numpy(images).float() / 255, torch.from_numpy(classes)
    teacher = net([16, 24, 32, 48], 2, 0)
    folder = tmp_path_factory.mktemp("teacher")
    teacher.load_state_dict(Run(model=teacher, batches=batches, settings=SETTINGS, work=folder).train())
    teacher.eval()
    with torch.no_grad():
        found = {"kept": [], "teacher": [100 * float((teacher(seen).argmax(1) == truth).float().mean())]}
    runs = {f"all {s}": (s, Weights()) for s in SEEDS}
    runs["control"] = (SEEDS[0], Weights(sync=0.0, recon=0.0, cross=0.0))
    for arm, (seed, weights) in runs.items():
        student = net([4, 6, 8, 12], 1, seed)
        pair = Pair(staged(teacher, shape=SHAPE), staged(student, shape=SHAPE), shape=SHAPE)
        run = Run(
            model=pair, batches=batches, settings=SETTINGS, work=tmp_path_factory.mktemp(arm), clip=5.0,
            criterion=Distilled(pair, Classes(), weights, masks="prefix", seed=0),
        )  # fmt: skip
        before = [t.clone() for t in teacher.state_dict().values()]
        pair.load_state_dict(run.train())
        found["kept"].append(
            float(all(torch.equal(a, b) for a, b in zip(before, teacher.state_dict().values(), strict=True)))
        )
        found[arm] = shares(pair, seen, truth)
    found["all"] = np.mean([found[f"all {s}"] for s in SEEDS], axis=0).tolist()
    return found


def test_no_step_of_the_path_falls_and_its_end_is_the_teacher(learned: dict[str, list[float]]):
    path = learned["all"]
    assert all(after >= before - 1 for before, after in itertools.pairwise(path)), path
    assert all(learned[f"all {s}"][-1] == learned["teacher"][0] for s in SEEDS)


def test_the_start_is_as_good_as_a_student_that_was_distilled_alone(learned: dict[str, list[float]]):
    assert learned["all"][0] >= learned["control"][0] - 2, learned


def test_without_the_terms_that_align_a_step_answers_nothing(learned: dict[str, list[float]]):
    control = learned["control"]
    assert control[1] < 40, control
    assert control[-1] == learned["teacher"][0]


def test_the_teachers_weights_and_statistics_are_what_they_were(learned: dict[str, list[float]]):
    assert learned["kept"] == [1.0] * (len(SEEDS) + 1)
