"""The bench modes: how many runs, how long, and which percentiles they publish."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mode:
    """Runs and seconds that must both be reached, and the percentiles that are shown.

    Attributes:
        name: As asked for.
        runs: At least.
        seconds: Measured time at least.
        limit_s: A span ends after this long, whatever was reached.
        publishes: Shares of the percentiles that are shown, where the sample carries them.
        idle_s: Rest before and after for the idle power, where there is a power sensor.
    """

    name: str
    runs: int
    seconds: float
    limit_s: float
    publishes: tuple[float, ...]
    idle_s: float = 0.0


# Of a run: inputs in place, with copies, from a frame to its answer.
SPANS = ("model", "model+copies", "frame_to_result")
_FULL = (0.5, 0.9, 0.95, 0.99)
# Counts and times are MLPerf Mobile's rapid, quick and normal runs, and MLPerf Inference Edge's 600 s;
# 60 s of rest is its power rule.
MODES = {
    m.name: m
    for m in (
        Mode(name="smoke", runs=64, seconds=6, limit_s=60, publishes=(0.5, 0.9)),
        Mode(name="quick", runs=128, seconds=10, limit_s=120, publishes=(0.5, 0.9)),
        Mode(name="standard", runs=1024, seconds=60, limit_s=600, publishes=_FULL, idle_s=60),
        Mode(name="mlperf", runs=64, seconds=600, limit_s=3600, publishes=(0.5, 0.9, 0.99), idle_s=60),
        Mode(name="soak", runs=1, seconds=1800, limit_s=7 * 86400, publishes=_FULL, idle_s=60),
        Mode(name="paced", runs=64, seconds=60, limit_s=7 * 86400, publishes=_FULL, idle_s=60),
    )
}
