"""SlideLoss: its table, its boundaries, its mean overlap in the right units, and distillation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.errors import RecipeError
from edgekit.models.architectures import architecture
from edgekit.models.torch_models import fresh
from edgekit.training.criterion import criterion_of
from edgekit.training.distill import check_teacher, distill_loss
from edgekit.training.settings import TrainPart
from edgekit.training.slide import SlideBCE, mean_overlap, slide_weights

# x: weight at mu 0.2, 0.5 and 0.7 (reference values of MS-YOLO's equation, natural exponent).
TABLE = {
    0.0: (1, 1, 1), 0.10: (1, 1, 1), 0.20: (2.225541, 1, 1), 0.40: (1.822119, 1, 1),
    0.41: (1.803988, 1.648721, 1), 0.45: (1.733253, 1.648721, 1), 0.50: (1.648721, 1.648721, 1),
    0.55: (1.568312, 1.568312, 1), 0.65: (1.419068, 1.419068, 1.349859), 0.70: (1.349859,) * 3,
    0.80: (1.221403,) * 3, 1.00: (1, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize(("column", "mu"), [(0, 0.2), (1, 0.5), (2, 0.7)])
def test_the_weights_are_those_of_the_table(column: int, mu: float):
    x = torch.tensor(list(TABLE), dtype=torch.float64)
    expected = torch.tensor([row[column] for row in TABLE.values()])
    assert torch.allclose(slide_weights(x, mu), expected.float(), atol=1e-6)


def test_losses_and_gradients_are_those_worked_out_by_hand():
    logits = torch.zeros(6, requires_grad=True)
    loss = SlideBCE("fixed", 0.5)(logits, torch.tensor([0, 0.3, 0.45, 0.5, 0.8, 1]))
    assert loss.tolist() == pytest.approx(
        [0.693147, 0.693147, 1.142806, 1.142806, 0.846612, 0.693147], abs=1e-6
    )
    loss.sum().backward()
    assert logits.grad.tolist() == pytest.approx([0.5, 0.2, 0.082436, 0, -0.366421, -0.5], abs=1e-6)


@given(st.floats(0, 1), st.one_of(st.floats(-1, 1), st.just(math.nan)))
def test_weights_lie_between_one_and_e_to_the_08(x: float, mu: float):
    weight = float(slide_weights(torch.tensor([x]), mu))
    assert 1 <= weight <= math.exp(0.8) + 1e-6


def test_boundaries_and_the_floor():
    mu = 0.6
    x = torch.tensor([mu - 0.1, mu], dtype=torch.float32)
    edge = slide_weights(x, float(x[1]))
    assert float(edge[0]) == 1
    assert float(edge[1]) == pytest.approx(math.exp(1 - mu), abs=1e-6)
    some = torch.linspace(0, 1, 101)
    for low in (math.nan, -1.0, 0.0, 0.19):
        assert torch.equal(slide_weights(some, low), slide_weights(some, 0.2))


def test_without_positives_it_is_plain_cross_entropy_and_half_precision_does_not_overflow():
    logits = torch.randn(3, 7)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.zeros(3, 7), reduction="none")
    assert torch.equal(SlideBCE("fixed", 0.5)(logits, torch.zeros(3, 7)), plain)
    huge = torch.tensor([60000.0, -60000.0], dtype=torch.float16)
    assert torch.isfinite(SlideBCE()(huge, torch.tensor([0.9, 0.9]))).all()


def test_modes_of_mu():
    batch, ema, fixed = SlideBCE("batch"), SlideBCE("ema"), SlideBCE("fixed", 0.3)
    for one in (batch, ema, fixed):
        one.hear(0.8)
        one.hear(math.nan)
    assert (float(batch.mu), float(fixed.mu)) == (0.8, 0.3)
    assert float(ema.mu) == pytest.approx(0.99 * 0.2 + 0.01 * 0.8)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_predictions_equal_to_their_targets_have_a_mean_overlap_of_one_at_every_stride(stride: int):
    """Grid units against pixels, the slip in MS-YOLO's code, would give a negative value here."""
    model = fresh(architecture("hierlight-yolo-n" if stride == 4 else "ms-yolo", nc=2)).train()
    loss = criterion_of(model, TrainPart(loss="slide"))
    box = torch.tensor([8.0 * stride, 8.0 * stride, 12.0 * stride, 12.0 * stride])
    anchors = (
        torch.stack(
            torch.meshgrid(torch.arange(16) + 0.5, torch.arange(16) + 0.5, indexing="xy"), -1
        ).reshape(-1, 2)
        * stride
    )
    predicted = box.expand(1, len(anchors), 4).clone()
    loss.assigner(
        torch.full((1, len(anchors), 2), 0.5), predicted, anchors, torch.zeros(1, 1, 1), box.view(1, 1, 4),
        torch.ones(1, 1, 1),
    )  # fmt: skip
    assert float(loss.bce.mu) == pytest.approx(1, abs=1e-4)
    assert mean_overlap(predicted[0, :3] / stride, box.expand(3, 4)) < 0


def test_a_real_step_hears_an_overlap_between_minus_one_and_one_and_gives_gradients():
    torch.manual_seed(0)
    model = fresh(architecture("ms-yolo", nc=2)).train()
    loss = criterion_of(model, TrainPart(loss="slide", mu_mode="batch"))
    batch = {
        "batch_idx": torch.tensor([0.0, 1.0]), "cls": torch.tensor([[0.0], [1.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.3, 0.4], [0.4, 0.6, 0.2, 0.2]]),
    }  # fmt: skip
    total, parts = loss.loss(model(torch.rand(2, 3, 128, 128)), batch)
    total.sum().backward()
    assert -1 <= float(loss.bce.mu) <= 1
    assert not loss.bce.mu.requires_grad
    assert set(parts) == {"box_loss", "cls_loss", "dfl_loss"}


def test_only_the_class_loss_is_changed():
    torch.manual_seed(0)
    model = fresh(architecture("ms-yolo", nc=2)).train()
    batch = {
        "batch_idx": torch.tensor([0.0]), "cls": torch.tensor([[1.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
    }  # fmt: skip
    raw = {
        k: v.detach() if isinstance(v, torch.Tensor) else v
        for k, v in model(torch.rand(1, 3, 96, 96)).items()
    }
    parts = [criterion_of(model, TrainPart(loss=name)).loss(raw, batch)[1] for name in ("bce", "slide")]
    assert parts[0]["box_loss"] == parts[1]["box_loss"]
    assert parts[0]["dfl_loss"] == parts[1]["dfl_loss"]
    assert parts[1]["cls_loss"] > parts[0]["cls_loss"]


def test_end_to_end_detectors_are_refused():
    model = fresh("yolo26n.yaml", nc=2)
    with pytest.raises(RecipeError, match="end-to-end"):
        criterion_of(model, TrainPart())


def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn():
    torch.manual_seed(0)
    said = {"scores": torch.randn(2, 3, 40), "boxes": torch.randn(2, 64, 40)}
    other = {k: (v + torch.randn_like(v)).requires_grad_() for k, v in said.items()}
    assert float(distill_loss(said, said, 1.0)) == pytest.approx(0, abs=1e-6)
    loss = distill_loss(other, said, 1.0)
    assert float(loss.detach()) > 0.01
    loss.backward()
    assert all(v.grad.abs().sum() > 0 for v in other.values())
    assert float(distill_loss(other, said, 2.0).detach()) == pytest.approx(2 * float(loss.detach()), rel=1e-6)


def test_a_teacher_with_other_anchors_or_classes_is_refused():
    student = fresh(architecture("hierlight-yolo-n", nc=2))
    for name, nc, words in (("yolov8n", 2, "strides"), ("hierlight-yolo-s", 3, "classes")):
        with pytest.raises(RecipeError, match=words):
            check_teacher(student, fresh(architecture(name, nc=nc)))
    check_teacher(student, fresh(architecture("hierlight-yolo-s", nc=2)))


def test_settings_have_limits_for_every_number():
    from dataclasses import fields

    from edgekit.training.settings import LIMITS

    numbers = {f.name for f in fields(TrainPart) if f.type in {"int", "float"}}
    assert numbers == set(LIMITS)
    assert all(low <= getattr(replace(TrainPart()), k) <= high for k, (low, high) in LIMITS.items())
