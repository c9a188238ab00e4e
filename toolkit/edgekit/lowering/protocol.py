"""What every lowering can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgekit.core.records import Artifact, Network, QuantPlan
from edgekit.devices.jetpacks import Target


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a lowering may be asked for.

    Attributes:
        precision: fp32, fp16, bf16 or int8.
        threads: Threads of the engine, 0 for the engine's choice.
        style: Which of the backend's own ways to write a plan; empty for its first.
        wishes: For a profile: what the recipe says of the device.
        target: For TensorRT: the version it is written for.
    """

    precision: str = "fp32"
    threads: int = 0
    style: str = ""
    wishes: Mapping[str, Any] = field(default_factory=dict)
    target: Target | None = None


class Lowering(Protocol):
    """Writes what one engine reads."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Return what it can lower to."""

    @property
    def styles(self) -> tuple[str, ...]:
        """Return its ways to write int8, the usual one first."""

    def lower(self, network: Network, plan: QuantPlan | None, options: Options, out: Path) -> Artifact:
        """Write the artifact's files into the empty folder `out` and return it."""
