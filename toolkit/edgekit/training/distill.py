"""Learn from a larger detector: its class scores and box distributions, anchor by anchor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, log_softmax

from edgekit.core.errors import RecipeError


def check_teacher(student: Any, teacher: Any) -> None:
    """Refuse a teacher whose anchors or classes are not the student's.

    Raises:
        RecipeError: Strides, classes or distributions differ.
    """
    own, other = student.model[-1], teacher.model[-1]
    if hasattr(other, "one2one_cv2"):
        raise RecipeError("train.teacher: is an end-to-end detector", hint="Take one that needs NMS.")
    for what, a, b in (
        ("strides", own.stride.tolist(), other.stride.tolist()),
        ("classes", own.nc, other.nc),
        ("box distributions", own.reg_max, other.reg_max),
    ):
        if a != b:
            raise RecipeError(
                f"train.teacher: its {what} are {b}, the student's {a}",
                hint="Take a teacher of the same family, trained on the same classes.",
            )


def distill_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], weight: float) -> Tensor:
    """Return a scalar: class cross-entropy and box KL divergence, both led by the teacher's certainty.

    Args:
        student: `scores` (B, nc, A) and `boxes` (B, 4 * reg_max, A), logits.
        teacher: The same.
        weight: Factor on the sum.
    """
    said = teacher["scores"].sigmoid()
    certain = said.amax(1)
    total = certain.sum().clamp(min=1)
    # Squared error as focus: where both agree that there is nothing, nothing is to be learned.
    focus = (student["scores"].detach().sigmoid() - said).square()
    classes = (binary_cross_entropy_with_logits(student["scores"], said, reduction="none") * focus).sum()
    b, sides, anchors = teacher["boxes"].shape
    shape = (b, 4, sides // 4, anchors)
    apart = kl_div(
        log_softmax(student["boxes"].view(shape), 2), log_softmax(teacher["boxes"].view(shape), 2),
        reduction="none", log_target=True,
    ).sum(2).mean(1)  # fmt: skip
    return weight * (classes + (apart * certain).sum()) / total


@torch.no_grad()
def heard(teacher: Any, images: Tensor) -> dict[str, Tensor]:
    """Return the teacher's logits for a batch, in float32."""
    found = teacher(images)
    logits = found[1] if isinstance(found, tuple) else found
    return {k: logits[k].float() for k in ("boxes", "scores")}
