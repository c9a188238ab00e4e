"""Integrate power readings or an energy counter over a run, with what they leave open."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.result import Energy
from edgekit.machine.sensors import Sensor, total_rails

Readings = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Start and end of the idle time before, the runs, and the idle time after, seconds of one clock."""

    before: tuple[float, float] | None
    run: tuple[float, float]
    after: tuple[float, float] | None


def energy_of(columns: Mapping[Sensor, Readings], phases: Phases, runs: int, *, why_not: str) -> Energy:
    """Return the energy of `runs` runs.

    Args:
        columns: Time and value of each reading, by sensor of kind "power" or "energy".
        phases: Where the runs lie on the same clock.
        runs: How many there were.
        why_not: Why there is no sensor, for the result.
    """
    counters = {s: c for s, c in columns.items() if s.kind == "energy" and s.name.startswith("package")}
    rails = {s.name: (s, c) for s, c in columns.items() if s.kind == "power"}
    names = total_rails(list(rails))
    if names:
        return _from_power([rails[n] for n in names], phases, runs)
    if counters:
        return _from_counters(counters, phases, runs)
    if rails:
        return Energy(why=f"none of the rails is the board's input: {', '.join(sorted(rails))}")
    return Energy(why=why_not)


def _from_power(rails: Sequence[tuple[Sensor, Readings]], phases: Phases, runs: int) -> Energy:
    parts = [integral(c, *phases.run) for _, c in rails]
    if any(p is None for p in parts):
        return Energy(why="fewer than two power readings inside the run")
    length = phases.run[1] - phases.run[0]
    joules = sum(p for p in parts if p is not None)
    inside = sorted(_sums([c for _, c in rails], *phases.run))
    idle, drift = _idle([c for _, c in rails], phases)
    step = sum(s.step for s, _ in rails)
    mean = joules / length
    return Energy(
        state="measured", method=f"INA3221 {' + '.join(s.name for s, _ in rails)}, trapezoid",
        gross_j=joules / runs, net_j=None if idle is None else (joules - idle * length) / runs,
        mean_w=mean, p99_w=inside[min(int(0.99 * len(inside)), len(inside) - 1)], idle_w=idle,
        error_j=(step + drift) * length / runs,
    )  # fmt: skip


def _from_counters(counters: Mapping[Sensor, Readings], phases: Phases, runs: int) -> Energy:
    joules, length = 0.0, phases.run[1] - phases.run[0]
    idle_parts = []
    for sensor, readings in counters.items():
        found = risen(readings, *phases.run, top=sensor.limit)
        if found is None:
            return Energy(why="fewer than two energy readings inside the run")
        joules += found[0] / found[1] * length
        for phase in (phases.before, phases.after):
            quiet = risen(readings, *phase, top=sensor.limit) if phase else None
            if quiet:
                idle_parts.append(quiet[0] / quiet[1])
    idle = sum(idle_parts) / len(idle_parts) * len(counters) if idle_parts else None
    drift = max(idle_parts) - min(idle_parts) if idle_parts else 0.0
    return Energy(
        state="measured", method=f"RAPL {' + '.join(s.name for s in counters)}, counter",
        gross_j=joules / runs, net_j=None if idle is None else (joules - idle * length) / runs,
        mean_w=joules / length, idle_w=idle, error_j=drift * length / runs,
    )  # fmt: skip


def integral(readings: Readings, began: float, ended: float) -> float | None:
    """Return the trapezoid integral over the readings' own times, stretched to the phase; None below two."""
    inside = [(t, v) for t, v in readings if began <= t <= ended]
    if len(inside) < 2:
        return None
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(inside))
    return area * (ended - began) / (inside[-1][0] - inside[0][0])


def risen(readings: Readings, began: float, ended: float, *, top: float) -> tuple[float, float] | None:
    """Return by how much a counter rose and over how long; one that wrapped starts at 0 after `top`."""
    inside = [(t, v) for t, v in readings if began <= t <= ended]
    if len(inside) < 2:
        return None
    total = 0.0
    for (_, a), (_, b) in itertools.pairwise(inside):
        total += b - a if b >= a else b - a + top
    return total, inside[-1][0] - inside[0][0]


def _sums(columns: Sequence[Readings], began: float, ended: float) -> list[float]:
    """Return the sums of readings made in the same round, inside a phase."""
    rounds: dict[float, list[float]] = {}
    for column in columns:
        for t, value in column:
            if began <= t <= ended:
                rounds.setdefault(t, []).append(value)
    return [sum(v) for v in rounds.values() if len(v) == len(columns)]


def _idle(columns: Sequence[Readings], phases: Phases) -> tuple[float | None, float]:
    """Return the mean idle power and by how much it differs before and after."""
    means = []
    for phase in (phases.before, phases.after):
        found = _sums(columns, *phase) if phase else []
        if found:
            means.append(sum(found) / len(found))
    if not means:
        return None, 0.0
    return sum(means) / len(means), max(means) - min(means)
