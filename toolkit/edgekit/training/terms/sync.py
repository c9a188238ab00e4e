"""Boundaries of student and teacher shall be alike, through the converters."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.training.terms.distance import apart
from edgekit.training.terms.protocol import Lesson, Term


def loss(lesson: Lesson) -> Tensor:
    """Return the mean over inner boundaries of d(f_s, E f_t) + d(D f_s, f_t), weighted."""
    pair, parts = lesson.pair, []
    for k in range(pair.stages - 1):
        own, other = lesson.own[k], lesson.other[k]
        parts.append(apart(own, pair.encoders[k](other)) + apart(pair.decoders[k](own), other))
    return lesson.weights.sync * torch.stack(parts).mean()


PLUGIN: Term = loss
