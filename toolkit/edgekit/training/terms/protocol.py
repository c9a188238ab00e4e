"""What a term of a distillation's loss sees, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from edgekit.training.distillation.pair import Pair


class Task(Protocol):
    """What answers mean: how far they are from labels, and from a teacher's answers."""

    def hard(self, said: Any, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of answers against labels, a scalar."""

    def soft(self, said: Any, taught: Any) -> Tensor:
        """Return how far answers are from the teacher's, a scalar."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the terms (arXiv 2509.22319; the defaults are its authors').

    Attributes:
        alpha: Share of the labels against the teacher's answers.
        sync: Of boundaries that shall be alike through the converters.
        recon: Of converters that shall undo each other.
        cross: Of what mixed networks answer.
    """

    alpha: float = 0.4
    sync: float = 1.0
    recon: float = 1.0
    cross: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One batch as the terms see it.

    Attributes:
        pair: Student, teacher and converters.
        images: (B, C, H, W).
        batch: Labels.
        student: Its answer.
        own: Its boundaries.
        teacher: The teacher's answer.
        other: The teacher's boundaries, without gradient.
        task: What answers mean.
        weights: Of the terms.
        masks: prefix, random or all: which mixed networks are trained.
        rng: Of this batch alone.
    """

    pair: Pair
    images: Tensor
    batch: dict[str, Tensor]
    student: Any
    own: Sequence[Tensor]
    teacher: Any
    other: Sequence[Tensor]
    task: Task
    weights: Weights
    masks: str
    rng: np.random.Generator


Term = Callable[[Lesson], Tensor]
