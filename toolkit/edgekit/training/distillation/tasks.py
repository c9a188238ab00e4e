"""What a classifier's and a detector's answers mean to a distillation."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, log_softmax

# Anchors where the teacher is surer than this teach boxes and classes.
_SURE = 0.05


class Classes:
    """Logits (B, classes).

    Args:
        tau: Temperature of the teacher's and the student's answers.
    """

    def __init__(self, *, tau: float = 2.0) -> None:
        self.tau = tau

    def hard(self, said: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the cross-entropy against `cls` (B,)."""
        return cross_entropy(said.float(), batch["cls"])

    def soft(self, said: Tensor, taught: Tensor) -> Tensor:
        """Return τ² KL(teacher || student) of softened classes, batch mean."""
        own, other = log_softmax(said.float() / self.tau, 1), log_softmax(taught.float() / self.tau, 1)
        return self.tau**2 * kl_div(own, other, reduction="batchmean", log_target=True)


class Boxes:
    """Logits of a detector; no paper has this, it is ours.

    Args:
        criterion: Its own loss against labels.
    """

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion

    def hard(self, said: Any, batch: dict[str, Tensor]) -> Tensor:
        """Return the detection loss an image."""
        found = {k: v.float() if isinstance(v, Tensor) else v for k, v in logits_of(said).items()}
        loss, _ = self.criterion.loss(found, batch)
        total: Tensor = loss.sum() / len(batch["img"])
        return total

    def soft(self, said: Any, taught: Any) -> Tensor:
        """Return binary KL of class logits plus KL of the box distributions, at anchors where the teacher is sure."""
        own, other = logits_of(said), logits_of(taught)
        scores, wanted = own["scores"].float(), other["scores"].float()
        sure = wanted.sigmoid().amax(1) > _SURE
        count = sure.sum().clamp(min=1)
        target = wanted.sigmoid()
        both = binary_cross_entropy_with_logits(scores, target, reduction="none")
        # The entropy of what the teacher says: with it, equal answers give 0.
        least = binary_cross_entropy_with_logits(wanted, target, reduction="none")
        classes = ((both - least).sum(1) * sure).sum()
        b, sides, anchors = other["boxes"].shape
        shape = (b, 4, sides // 4, anchors)
        boxes = kl_div(
            log_softmax(own["boxes"].float().view(shape), 2), log_softmax(other["boxes"].float().view(shape), 2),
            reduction="none", log_target=True,
        ).sum(2).mean(1)  # fmt: skip
        total: Tensor = (classes + (boxes * sure).sum()) / count
        return total


def logits_of(said: Any) -> dict[str, Any]:
    """Return a detector's logits, in train mode or in eval mode."""
    found: dict[str, Any] = said[1] if isinstance(said, tuple | list) else said
    return found
