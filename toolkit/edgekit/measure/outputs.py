"""Run two artifacts on the same few inputs and compare what they give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.core.plugins import pick
from edgekit.core.records import Artifact
from edgekit.measure.inputs import Inputs
from edgekit.measure.parity import largest_error, scores_died

_COUNT = 8


def outputs_apart(reference: Artifact, other: Artifact, files: Sequence[Path]) -> tuple[float, bool]:
    """Return the largest relative output error over 8 inputs, at most 1e9, and whether a detector's scores are gone.

    Args:
        reference: What is right.
        other: What is compared with it.
        files: Frames the inputs are made of; none means random ones.
    """
    drawn = Inputs(other.contract, files[:_COUNT], seed=0)
    given = [drawn.draw() for _ in range(_COUNT)]
    rows = []
    for one in (reference, other):
        with pick("backends", one.backend, what="backend").open(one) as session:
            rows.append([session.infer(g) for g in given])
    worst = max(largest_error(a, b) for a, b in zip(*rows, strict=True))
    died = any(scores_died(a, b, other.contract.answers) for a, b in zip(*rows, strict=True))
    return min(worst, 1e9), died
