"""The bench modes: how many runs, how long, and which percentiles they publish."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mode:
    """Runs and seconds that must both be reached, and the percentiles that are shown."""

    name: str
    runs: int
    seconds: float
    limit_s: float
    publishes: tuple[float, ...]


# Counts and times are MLPerf Mobile's rapid, quick and normal runs.
MODES = {
    m.name: m
    for m in (
        Mode(name="smoke", runs=64, seconds=6, limit_s=60, publishes=(0.5, 0.9)),
        Mode(name="quick", runs=128, seconds=10, limit_s=120, publishes=(0.5, 0.9)),
        Mode(name="standard", runs=1024, seconds=60, limit_s=600, publishes=(0.5, 0.9, 0.95, 0.99)),
    )
}
