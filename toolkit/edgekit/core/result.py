"""The record of one bench run: what was measured, on what, how; the published schema of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.core.outcome import Latency
from edgekit.core.records import LayerRun

SCHEMA = "edgekit/result/v1"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was benchmarked.

    Attributes:
        name: Of the bundle or file.
        kind: "bundle", "onnx" or "openvino".
        sha256: Of the bundle's manifest or the model file.
        variant: Of the bundle, empty for a file.
        backend: Engine.
        precision: As planned.
        threads: Of the engine, 0 for its own choice.
        cpus: Cores it was pinned to, empty where it was not.
    """

    name: str
    kind: str
    sha256: str
    variant: str = ""
    backend: str = ""
    precision: str = ""
    threads: int = 0
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """What sensors said beside a run.

    Attributes:
        hz: Readings a second.
        at_s: Time of each reading since the first run, seconds; below 0 before it.
        columns: Values by "kind name"; null where one reading failed.
        missing: What could not be read, with the reason.
        cost: CPU seconds of the reading itself over the run's seconds.
        throttled: "yes", "no" or "unknown".
        reasons: What says so.
        spin: Time of a fixed loop at the end over that at the start: above 1.03 hints at hidden throttling.
    """

    hz: float
    at_s: tuple[float, ...] = ()
    columns: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    cost: float = 0.0
    throttled: str = "unknown"
    reasons: tuple[str, ...] = ()
    spin: float | None = None


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy of the runs, integrated from power readings or a counter.

    Attributes:
        state: "measured" or "n/a".
        why: Why not, empty where it was measured.
        method: Sensor and rails.
        gross_j: Joules a run.
        net_j: The same less the idle power, None without an idle phase.
        mean_w: Mean power while running.
        p99_w: 99th percentile of the readings, None from a counter.
        idle_w: Mean power before and after, None without an idle phase.
        error_j: What one step of the sensor and the drift of the idle power leave open.
    """

    state: str = "n/a"
    why: str = ""
    method: str = ""
    gross_j: float | None = None
    net_j: float | None = None
    mean_w: float | None = None
    p99_w: float | None = None
    idle_w: float | None = None
    error_j: float | None = None


@dataclass(frozen=True, kw_only=True)
class Paced:
    """Runs at a fixed rate; latency counts from the time a frame was due.

    Attributes:
        fps: Frames a second.
        frames: How many were due.
        missed: Answered after the next frame was due.
    """

    fps: float
    frames: int
    missed: int


@dataclass(frozen=True, kw_only=True)
class Minute:
    """One minute of a long run.

    Attributes:
        start_s: Since the first run.
        runs: In this minute.
        median_ms: Of them.
        p90_ms: Plain 90th percentile of them.
        hottest_c: Highest temperature read, None where none was.
    """

    start_s: float
    runs: int
    median_ms: float
    p90_ms: float
    hottest_c: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One bench run on one device, complete or failed with a coded reason.

    Attributes:
        id: Given by whoever asked: the same order is never stored twice.
        when: UTC, ISO 8601, by the clock of the machine that asked.
        mode: smoke, quick, standard, mlperf, soak or paced.
        device: Name it was asked for.
        subject: What ran.
        passport: What the device is.
        settings: Everything that decides the run: seed, runs, seconds, spans, inputs.
        state: "complete" or "failed".
        reason: Code of a failure, such as "lost-link", and its words; empty otherwise.
        start: open_ms, load_ms, first_ms, second_ms, after_idle_ms, memory_mb.
        warm_up: How many runs it took and whether it became steady.
        spans: Latencies; the first is what the mode is about.
        blocks_ms: Medians of the bursts, with their start in seconds: latency against time.
        minutes: Of a soak.
        paced: Of a paced run.
        layers: As they ran, where asked for.
        telemetry: What sensors said beside it, None where it was off.
        energy: Of the runs.
        emulated: Name of the emulator, empty on real hardware: such latencies say nothing about a board.
        notes: What a person should know.
        schema: Version of this record.
    """

    id: str
    when: str
    mode: str
    device: str
    subject: Subject
    passport: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: str = "complete"
    reason: tuple[str, ...] = ()
    start: Mapping[str, float] = field(default_factory=dict)
    warm_up: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Latency, ...] = ()
    blocks_ms: tuple[tuple[float, float], ...] = ()
    minutes: tuple[Minute, ...] = ()
    paced: Paced | None = None
    telemetry: Telemetry | None = None
    energy: Energy = field(default_factory=Energy)
    layers: tuple[LayerRun, ...] = ()
    emulated: str = ""
    notes: tuple[str, ...] = ()
    schema: str = SCHEMA

    def latency(self, span: str = "") -> Latency | None:
        """Return a span's latency, the first where none is named; None where it was not measured."""
        return next((x for x in self.spans if span in {"", x.span}), None)
