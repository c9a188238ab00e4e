"""SlideLoss: weigh the class loss around the mean overlap of predicted and assigned boxes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import TaskAlignedAssigner

# Below this the weights of MS-YOLO's code do not move any more.
FLOOR = 0.2
_BAND = 0.1
_EMA = 0.99


def floored(mu: float) -> float:
    """Return mu, at least 0.2; NaN (no assigned box) counts as 0.2."""
    return max(FLOOR, mu)


def slide_weights(targets: Tensor, mu: float) -> Tensor:
    """Return the weight of each element; at least 1, at most e^0.8.

    1 up to mu - 0.1, exp(1 - mu) up to mu, exp(1 - x) from there (MS-YOLO, IJCNN 2025, its equation and
    its code; YOLO-FaceV2's paper agrees). It depends on how well a box is found, not on how rare its
    class is: rare classes are not favoured.

    Args:
        targets: Soft targets x in [0, 1], any shape; zero for negatives.
        mu: Mean overlap; values under 0.2 count as 0.2.
    """
    mu = floored(mu)
    x = targets.float()
    middle = torch.where(x > mu - _BAND, math.exp(1 - mu), 1.0)
    return torch.where(x >= mu, torch.exp(1 - x), middle)


class SlideBCE(nn.Module):
    """Binary cross-entropy of logits, each element weighed by `slide_weights` of its target.

    Args:
        mode: "batch" takes mu as it is told, "ema" its running average, "fixed" never changes it.
        mu: The first value, and the fixed one.
    """

    mu: Tensor

    def __init__(self, mode: str = "batch", mu: float = FLOOR) -> None:
        super().__init__()
        self.mode = mode
        # A buffer, so that a resumed run goes on with the same average.
        self.register_buffer("mu", torch.tensor(float(mu), dtype=torch.float64))

    def hear(self, overlap: float) -> None:
        """Take in the mean overlap of one batch, a number without a gradient."""
        if self.mode == "fixed" or math.isnan(overlap):
            return
        new = overlap if self.mode == "batch" else _EMA * float(self.mu) + (1 - _EMA) * overlap
        self.mu.fill_(new)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every element, float32, same shape."""
        wide = targets.float()
        plain = nn.functional.binary_cross_entropy_with_logits(logits.float(), wide, reduction="none")
        return plain * slide_weights(wide, float(self.mu))


class SlideAssigner(TaskAlignedAssigner):
    """Task-aligned assignment that tells `hears` the mean CIoU of the boxes it assigned.

    Here both predicted and assigned boxes are in pixels. MS-YOLO's code compares predictions in grid
    units with targets in pixels, gets a negative CIoU, and so always uses the floor.
    """

    def __init__(self, *, like: TaskAlignedAssigner, hears: SlideBCE) -> None:
        super().__init__(
            topk=like.topk, num_classes=like.num_classes, alpha=like.alpha, beta=like.beta,
            stride=like.stride, eps=like.eps, topk2=like.topk2,
        )  # fmt: skip
        self.hears = hears

    def forward(self, pd_scores: Tensor, pd_bboxes: Tensor, *given: Any, **extra: Any) -> tuple[Tensor, ...]:
        """Return what the plain assigner returns."""
        plain: Any = super()
        found: tuple[Tensor, ...] = plain.forward(pd_scores, pd_bboxes, *given, **extra)
        boxes, positive = found[1], found[3].bool()
        self.hears.hear(mean_overlap(pd_bboxes[positive], boxes[positive]))
        return found


def mean_overlap(predicted: Tensor, assigned: Tensor) -> float:
    """Return the mean CIoU of two (N, 4) x1 y1 x2 y2 in the same units; NaN where N is 0."""
    if not len(predicted):
        return math.nan
    return float(bbox_iou(predicted.detach().float(), assigned.float(), xywh=False, CIoU=True).mean())
