"""A converter and its counterpart shall undo each other."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.training.terms.distance import apart
from edgekit.training.terms.protocol import Lesson, Term


def loss(lesson: Lesson) -> Tensor:
    """Return the mean over inner boundaries of d(D E f_t, f_t) + d(E D f_s, f_s), weighted."""
    pair, parts = lesson.pair, []
    for k in range(pair.stages - 1):
        encode, decode = pair.encoders[k], pair.decoders[k]
        own, other = lesson.own[k], lesson.other[k]
        parts.append(apart(decode(encode(other)), other) + apart(encode(decode(own)), own))
    return lesson.weights.recon * torch.stack(parts).mean()


PLUGIN: Term = loss
