"""What mixed networks answer, against the teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.training.distillation.masks import prefix_mask, prefix_masks, random_mask
from edgekit.training.terms.protocol import Lesson, Term


def loss(lesson: Lesson) -> Tensor:
    """Return the divergence of one mixed network, or the mean of labels and divergence over all of the prefix path."""
    pair, task, alpha = lesson.pair, lesson.task, lesson.weights.alpha
    if lesson.masks != "all":
        draw = prefix_mask if lesson.masks == "prefix" else random_mask
        said = pair.mixed(lesson.images, draw(pair.stages, lesson.rng), taught=lesson.other)
        return lesson.weights.cross * task.soft(said, lesson.teacher)
    parts = []
    for mask in prefix_masks(pair.stages)[1:-1]:
        said = pair.mixed(lesson.images, mask, taught=lesson.other)
        parts.append(alpha * task.hard(said, lesson.batch) + (1 - alpha) * task.soft(said, lesson.teacher))
    return lesson.weights.cross * torch.stack(parts).mean()


PLUGIN: Term = loss
