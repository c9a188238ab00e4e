"""The loss of a distillation: its terms, added."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.core.plugins import pick
from edgekit.training.distillation.pair import Pair
from edgekit.training.terms.protocol import Lesson, Task, Weights

TERMS = ("hard", "soft", "sync", "recon", "cross")


class Distilled:
    """Adds the terms of a lesson; takes what `Pair` gives.

    Args:
        pair: Student and teacher.
        task: What answers mean.
        weights: Of the terms; a term of weight 0 is left out.
        masks: prefix, random or all.
        seed: Of the masks.
    """

    bce = None

    def __init__(self, pair: Pair, task: Task, weights: Weights, *, masks: str, seed: int) -> None:
        self.pair, self.task, self.weights, self.masks, self.seed = pair, task, weights, masks, seed
        names = [t for t in TERMS if getattr(weights, t, 1.0)]
        self.terms = {t: pick("training.terms", t, what="term") for t in names}
        self.loss_names = tuple(f"{t}_loss" for t in names)

    def loss(self, found: dict[str, Any], batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of all terms and each of them."""
        lesson = Lesson(
            pair=self.pair, batch=batch, task=self.task, weights=self.weights, masks=self.masks,
            rng=np.random.default_rng([self.seed, 11, batch["step"]]), **found,
        )  # fmt: skip
        parts = {f"{name}_loss": term(lesson) for name, term in self.terms.items()}
        return torch.stack(list(parts.values())).sum(), {k: v.detach() for k, v in parts.items()}
