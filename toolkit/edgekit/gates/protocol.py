"""What every gate can do, and what it judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgekit.core.outcome import Grows, Link, Paints, VariantOutcome, Verdict
from edgekit.core.plugins import family


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found about the chosen variant.

    Attributes:
        chosen: The variant that is judged.
        reference: float32 on the same engine.
        speedup: Ratio of medians on alternating runs with its 95 % interval; None if not measured.
        why_no_accuracy: Why accuracy could not be judged; empty where it could.
        why_no_device: Why nothing was measured on the device; empty where it was.
        link: The codec between a sensor and the model, None where there is none.
        grows: How the variant grows while it serves, None where it is loaded whole.
        paints: The pictures it makes, None where it makes none.
        emulated: Name of the emulator the device is, empty for a real one: its latencies are no claim.
    """

    chosen: VariantOutcome
    reference: VariantOutcome | None = None
    speedup: tuple[float, float, float] | None = None
    why_no_accuracy: str = ""
    why_no_device: str = ""
    emulated: str = ""
    link: Link | None = None
    grows: Grows | None = None
    paints: Paints | None = None


class Gate(Protocol):
    """Judges one kind of limit."""

    @property
    def keys(self) -> Mapping[str, str]:
        """Return the recipe keys it answers for, with what each means."""

    @property
    def most(self) -> float | None:
        """Return the largest limit that means something; None where there is none."""

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Return the verdict; a limit that could not be checked is "not measured" or "not judged"."""


def gate_keys() -> dict[str, Gate]:
    """Return every gate key that a recipe may use, with the gate that judges it."""
    gates: dict[str, Any] = family("gates")
    return {key: gate for gate in gates.values() for key in gate.keys}
