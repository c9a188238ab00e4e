"""What the student answers, against the labels."""

from __future__ import annotations

from torch import Tensor

from edgekit.training.terms.protocol import Lesson, Term


def loss(lesson: Lesson) -> Tensor:
    """Return `alpha` times the task's own loss."""
    return lesson.weights.alpha * lesson.task.hard(lesson.student, lesson.batch)


PLUGIN: Term = loss
