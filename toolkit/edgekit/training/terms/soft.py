"""What the student answers, against the teacher's answers."""

from __future__ import annotations

from torch import Tensor

from edgekit.training.terms.protocol import Lesson, Term


def loss(lesson: Lesson) -> Tensor:
    """Return 1 - `alpha` times the divergence from the teacher."""
    return (1 - lesson.weights.alpha) * lesson.task.soft(lesson.student, lesson.teacher)


PLUGIN: Term = loss
