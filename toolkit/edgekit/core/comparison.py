"""The record of a comparison of two builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.core.result import Subject

SCHEMA = "edgekit/comparison/v1"
REGRESSION, IMPROVEMENT, NOTHING = "regression", "improvement", "no difference shown"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """One statistic of B over that of A: above 1, B is slower.

    Attributes:
        what: "median" or "p90".
        a_ms: Of A, the median over its blocks.
        b_ms: Of B.
        ratio: B over A.
        low: Lower end of the 95 % interval, from a bootstrap over blocks.
        high: Upper end.
        smallest: Smallest slowdown as a share that would be found 19 times in 20.
        verdict: "regression", "improvement" or "no difference shown".
    """

    what: str
    a_ms: float
    b_ms: float
    ratio: float
    low: float
    high: float
    smallest: float
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two builds against each other.

    Attributes:
        a: The reference.
        b: What is judged.
        when: UTC, ISO 8601.
        device: Where.
        span: What was timed.
        how: "interleaved" or "stored".
        ratios: Of medians, and of p90.
        blocks_a: Median and p90 of each block of A, milliseconds.
        blocks_b: The same of B.
        runs: In each block at least.
        spread: Coefficient of variation of the block medians, the larger of both.
        differences: What besides the build differs and could explain a change.
        passport: Of the machine, or of B's where stored results are compared.
        emulated: Name of the emulator, empty on real hardware.
        notes: What a person should know.
    """

    a: Subject
    b: Subject
    when: str
    device: str
    span: str
    how: str
    ratios: tuple[Ratio, ...]
    blocks_a: tuple[tuple[float, float], ...]
    blocks_b: tuple[tuple[float, float], ...]
    runs: int
    spread: float
    differences: tuple[str, ...] = ()
    passport: Mapping[str, Any] = field(default_factory=dict)
    emulated: str = ""
    notes: tuple[str, ...] = ()
    schema: str = SCHEMA

    @property
    def median(self) -> Ratio:
        """The ratio that is judged."""
        return self.ratios[0]
