"""Run two artifacts on the same few inputs and compare what they give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.backends.protocol import Arrays
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact
from edgekit.measure.inputs import Inputs
from edgekit.measure.parity import Outputs, largest_error, scores_fell

_COUNT = 8


def outputs_apart(reference: Artifact, other: Artifact, files: Sequence[Path]) -> tuple[float, bool]:
    """Return the largest relative output error over 8 inputs, at most 1e9, and whether a detector's scores fell.

    Args:
        reference: What is right.
        other: What is compared with it.
        files: Frames the inputs are made of; none means random ones.
    """
    drawn = Inputs(other.contract, files[:_COUNT], seed=0)
    given = [drawn.draw() for _ in range(_COUNT)]
    right, own = (_answers(one, given) for one in (reference, other))
    worst = max(largest_error(a, b) for a, b in zip(right, own, strict=True))
    return min(worst, 1e9), scores_fell(right, own, other.contract.answers)


def _answers(one: Artifact, given: Sequence[Arrays]) -> list[Outputs]:
    with pick("backends", one.backend, what="backend").open(one) as session:
        return [session.infer(g) for g in given]
