"""Run one artifact alone, with the machine's sensors beside it, and return the result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.records import Artifact, Contract, LayerRun
from edgekit.core.result import Energy, Minute, Paced, Result, Subject, Telemetry
from edgekit.core.watch import watcher
from edgekit.machine.probe import emulator, passport
from edgekit.measure.contest import EMULATED_WARM_S, Contender, burst, contest
from edgekit.measure.energy import Phases, energy_of
from edgekit.measure.latency import Kept, latency, thinned
from edgekit.measure.modes import MODES, SPANS, Mode
from edgekit.measure.percentiles import median, minimum
from edgekit.measure.telemetry import Sampler
from edgekit.measure.worker import AFTER_PAUSE

# Bursts end often enough that a second of telemetry has a few of them.
_BURST_MS = 250.0
_AFTER_IDLE_S = 10.0
# ARM boards' clocks settle later than x86's.
_WARM_S = {"aarch64": 5.0}
_BLOCKS, _HELD = 2000, 40_000
_PACED_S = 10.0
_OTHERS_S = 600.0


@dataclass(frozen=True, kw_only=True)
class BenchOrder:
    """What to run and how.

    Attributes:
        artifact: What runs.
        files: Frames its inputs are drawn from; none means random inputs.
        mode: Name of a mode.
        spans: What to measure; the first is measured to the mode's runs and seconds, the others to 662 runs.
        runs: Instead of the mode's, 0 for the mode's.
        seconds: Instead of the mode's, 0 for the mode's.
        fps: Of mode `paced`.
        seed: Of the inputs.
        cpus: Cores to pin to, none for the system's choice.
        hz: Readings of the sensors a second, 0 for none.
        rest: Whether to rest before and after for the idle power where there is a power sensor.
        layers: Whether to profile each layer afterwards.
        open_ms: What opening and verifying the bundle took, for the result.
    """

    artifact: Artifact
    files: tuple[Path, ...] = ()
    mode: str = "standard"
    spans: tuple[str, ...] = SPANS
    runs: int = 0
    seconds: float = 0.0
    fps: float = 30.0
    seed: int = 0
    cpus: tuple[int, ...] = ()
    hz: float = 5.0
    rest: bool = True
    layers: bool = False
    open_ms: float | None = None


@dataclass(kw_only=True)
class _Run:
    """What a run gathers."""

    spans: dict[str, Kept] = field(default_factory=dict)
    blocks: list[tuple[float, float]] = field(default_factory=list)
    minutes: list[Minute] = field(default_factory=list)
    paced: Paced | None = None
    unseen: int = 0
    limited: str = ""
    began_s: float = 0.0
    ended_s: float = 0.0


def mode_of(order: BenchOrder) -> Mode:
    """Return the order's mode with its own runs and seconds.

    Raises:
        RecipeError: There is no such mode.
    """
    if order.mode not in MODES:
        raise RecipeError(f"mode: no {order.mode!r}", hint=f"There are: {', '.join(MODES)}.")
    mode = MODES[order.mode]
    mode = replace(mode, runs=order.runs or mode.runs, seconds=order.seconds or mode.seconds)
    return replace(mode, limit_s=max(mode.limit_s, 2 * order.seconds))


def bench(order: BenchOrder, subject: Subject, *, identity: str, when: str, device: str) -> Result:
    """Return the result of one run on this machine.

    Args:
        order: What to run and how.
        subject: What it is, for the result.
        identity: The result's id.
        when: UTC in ISO 8601, by the clock of whoever asked.
        device: Name this machine was asked for by.

    Raises:
        RecipeError: An unknown mode, a span this model cannot have, or an artifact the engine cannot read.
        MissingError: The engine is not installed.
        DeviceError: The measuring process died.
    """
    mode, machine = mode_of(order), passport()
    refuse_spans(order.artifact, order.spans, order.files)
    run = _Run()
    with Sampler(hz=order.hz) as sampler:
        rest_s = mode.idle_s if order.rest and _has_power(sampler) else 0.0
        before = _rest(sampler, rest_s, "resting for the idle power")
        watcher().phase("loading the engine")
        with Contender(order.artifact, order.files, seed=order.seed, cpus=order.cpus, alone=True) as one:
            found = _measured(one, order, mode, sampler, run, least_s=_warm_s(machine))
        after = _rest(sampler, rest_s, "resting for the idle power")
        phases = Phases(before=before, run=(run.began_s, run.ended_s), after=after)
        first = next(iter(run.spans.values()))
        # Runs that are thrown away at the start of a burst took their energy, too.
        energy = _energy(sampler, phases, first.count + run.unseen)
        telemetry = sampler.report(run.began_s, run.ended_s) if order.hz else None
    spans = tuple(
        replace(latency(k.samples, name, mode.publishes), samples_ms=thinned(k.samples))
        for name, k in run.spans.items()
    )
    return Result(
        id=identity, when=when, mode=mode.name, device=device, subject=subject, passport=machine,
        settings=_settings(order, mode, first), start=found["start"], warm_up=found["warm_up"],
        spans=spans, blocks_ms=_fewer(run.blocks), minutes=tuple(run.minutes), paced=run.paced,
        telemetry=telemetry, energy=energy, layers=found["layers"],
        emulated=str(machine.get("emulated", "")), notes=_notes(run, found, telemetry, machine),
    )  # fmt: skip


def has_frames(contract: Contract) -> bool:
    """Return whether a model declares how a frame becomes its input and its output an answer."""
    return contract.frames is not None and contract.answers.task != "raw"


def refuse_spans(artifact: Artifact, spans: Sequence[str], files: Sequence[object]) -> None:
    """Refuse a span that does not exist, or that this model cannot have.

    Raises:
        RecipeError: There is one.
    """
    if unknown := sorted(set(spans) - set(SPANS)):
        raise RecipeError(f"span: no {unknown[0]!r}", hint=f"There are: {', '.join(SPANS)}.")
    if "frame_to_result" in spans and not (files and has_frames(artifact.contract)):
        lacks = "declares no pre- and post-processing" if files else "has no frames to start from"
        raise RecipeError(
            f"span frame_to_result: {artifact.main.name} {lacks}",
            hint="Give images with --data, or a bundle.",
        )


def _measured(
    one: Contender, order: BenchOrder, mode: Mode, sampler: Sampler, run: _Run, *, least_s: float
) -> dict[str, Any]:
    start = {k: round(v, 3) for k, v in one.facts.items() if k != "inputs_ms"}
    if order.open_ms is not None:
        start["open_ms"] = round(order.open_ms, 3)
    watcher().phase("warming up")
    limit_s = EMULATED_WARM_S if emulator() else min(60.0, mode.limit_s / 2)
    warm = one.warm_up(least_s=least_s, limit_s=limit_s)
    watcher().phase(f"measuring, mode {mode.name}")
    run.began_s = sampler.now_s()
    if mode.name == "paced":
        _paced(one, order, mode, sampler, run)
    else:
        _bursts(one, order.spans[0], mode, sampler, run)
    run.ended_s = sampler.now_s()
    for span in order.spans[1:]:
        runs = min(mode.runs if mode.runs > 1 else minimum(0.99), minimum(0.99))
        _others(one, span, runs, min(mode.limit_s, _OTHERS_S), run)
    if mode.seconds >= 60:
        _rest(sampler, _AFTER_IDLE_S, "resting, for the first run after it")
        start["after_idle_ms"] = round(one.single(order.spans[0]), 3)
    layers = (
        tuple(LayerRun(**{**r, "covers": tuple(r["covers"])}) for r in one.receipt()) if order.layers else ()
    )
    return {"start": start, "warm_up": {k: float(v) for k, v in warm.items()}, "layers": layers}


def _bursts(one: Contender, span: str, mode: Mode, sampler: Sampler, run: _Run) -> None:
    """Run bursts until the mode has its runs and seconds, noting when each began."""
    kept = run.spans.setdefault(span, Kept())
    began, minute, minute_began = time.monotonic(), Kept(1 << 16), 0.0
    while time.monotonic() - began < mode.limit_s:
        share = min(kept.count / mode.runs, kept.total_ms / 1000 / mode.seconds if mode.seconds else 1.0)
        if share >= 1:
            break
        at = sampler.now_s()
        found = one.run(span, burst(kept.samples, least_ms=_BURST_MS))
        kept.extend(found)
        run.unseen += AFTER_PAUSE
        run.blocks.append((round(at - run.began_s, 3), round(median(found), 4)))
        if len(run.blocks) > _HELD:
            run.blocks = _halved(run.blocks)
        minute.extend(found)
        if sampler.now_s() - run.began_s - minute_began >= 60:
            run.minutes.append(_minute(minute, minute_began, sampler, run.began_s))
            minute, minute_began = Kept(1 << 16), sampler.now_s() - run.began_s
        watcher().step(f"measuring {span}", round(share * 100), 100)
    else:
        run.limited = f"{span} was ended after {mode.limit_s:.0f} s with {kept.count} of {mode.runs} runs"


def _others(one: Contender, span: str, runs: int, limit_s: float, run: _Run) -> None:
    kept, ends = run.spans.setdefault(span, Kept()), time.monotonic() + limit_s
    while kept.count < runs:
        if kept.count and time.monotonic() > ends:
            run.limited = f"{span} was ended after {limit_s:.0f} s with {kept.count} of {runs} runs"
            return
        kept.extend(one.run(span, burst(kept.samples, least_ms=_BURST_MS)))
        watcher().step(f"measuring {span}", min(kept.count, runs), runs)


def _paced(one: Contender, order: BenchOrder, mode: Mode, sampler: Sampler, run: _Run) -> None:
    """Run frames at their due times; a frame is missed when its answer comes after the next one is due."""
    span = order.spans[0]
    kept, missed = run.spans.setdefault(span, Kept()), 0
    frames = max(round(mode.seconds * order.fps), mode.runs)
    while kept.count < frames:
        at = sampler.now_s()
        found = one.paced(span, order.fps, min(frames - kept.count, max(round(_PACED_S * order.fps), 1)))
        kept.extend(found)
        missed += sum(v > 1000 / order.fps for v in found)
        run.blocks.append((round(at - run.began_s, 3), round(median(found), 4)))
        watcher().step(f"measuring {span} at {order.fps:g} frames a second", kept.count, frames)
    run.paced = Paced(fps=order.fps, frames=kept.count, missed=missed)


def _minute(kept: Kept, start_s: float, sampler: Sampler, began_s: float) -> Minute:
    ordered = sorted(kept.samples)
    heat = [
        v
        for s in sampler.sensors.of("temperature")
        for t, v in sampler.column(s)
        if start_s <= t - began_s <= start_s + 61
    ]
    return Minute(
        start_s=round(start_s, 1), runs=kept.count, median_ms=round(median(ordered), 4),
        p90_ms=round(ordered[int(0.9 * (len(ordered) - 1))], 4), hottest_c=max(heat, default=None),
    )  # fmt: skip


def _rest(sampler: Sampler, seconds: float, name: str) -> tuple[float, float] | None:
    if not seconds:
        return None
    watcher().phase(f"{name}, {seconds:g} s")
    began = sampler.now_s()
    time.sleep(seconds)
    return began, sampler.now_s()


def _has_power(sampler: Sampler) -> bool:
    return bool(sampler.hz) and any(s.kind in {"power", "energy"} for s in sampler.sensors.found)


def _energy(sampler: Sampler, phases: Phases, runs: int) -> Energy:
    if not sampler.hz:
        return Energy(why="telemetry was off")
    columns = {s: sampler.column(s) for s in sampler.sensors.found if s.kind in {"power", "energy"}}
    why = sampler.sensors.missing.get("power", "no power sensor")
    return energy_of(columns, phases, runs, why_not=why)


def _warm_s(machine: Mapping[str, Any]) -> float:
    return 2.0 if machine.get("emulated") else _WARM_S.get(str(machine["arch"]), 2.0)


def _settings(order: BenchOrder, mode: Mode, kept: Kept) -> dict[str, Any]:
    inputs = f"{len(order.files)} frames, seeded draw, prepared once" if order.files else "random, seeded"
    return {
        "runs": mode.runs, "seconds": mode.seconds, "seed": order.seed, "spans": list(order.spans),
        "inputs": inputs, "options": dict(order.artifact.options), "hz": order.hz, "kept_every": kept.stride,
        **({"fps": order.fps} if mode.name == "paced" else {}),
    }  # fmt: skip


def _halved(blocks: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return bursts with neighbours made one, so that a run of days does not fill the memory."""
    return [(a[0], median([a[1], b[1]])) for a, b in zip(blocks[::2], blocks[1::2], strict=False)]


def _fewer(blocks: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return at most 2,000 bursts; neighbours become their median."""
    step = max(-(-len(blocks) // _BLOCKS), 1)
    groups = (blocks[k : k + step] for k in range(0, len(blocks), step))
    return tuple((g[0][0], median([ms for _, ms in g])) for g in groups)


def _notes(
    run: _Run, found: Mapping[str, Any], telemetry: Telemetry | None, machine: Mapping[str, Any]
) -> tuple[str, ...]:
    notes = []
    if machine.get("emulated"):
        notes.append(f"emulated by {machine['emulated']}: the latencies say nothing about a board")
    if not found["warm_up"].get("steady"):
        notes.append("the warm-up did not become steady")
    if run.limited:
        notes.append(run.limited)
    if telemetry and telemetry.throttled == "yes":
        notes.append(f"throttled: {'; '.join(telemetry.reasons)}")
    if since := machine.get("throttled_since_boot"):
        notes.append(f"since boot the firmware has noted: {', '.join(since)}")
    if run.paced and run.paced.missed:
        notes.append(f"{run.paced.missed} of {run.paced.frames} frames missed their deadline")
    if words := drift(run.minutes):
        notes.append(words)
    return tuple(notes)


def drift(minutes: Sequence[Minute]) -> str:
    """Return how a long run's last five minutes compare with its first five, empty below ten minutes."""
    if len(minutes) < 10:
        return ""
    first, last = (median([m.median_ms for m in part]) for part in (minutes[:5], minutes[-5:]))
    slow = next((m for m in minutes if m.median_ms > 1.03 * first), None)
    when = f"; 3 % slower from minute {slow.start_s / 60:.0f}" if slow else ""
    return f"last 5 minutes {100 * (last / first - 1):+.1f} % against the first 5{when}"


def swept(orders: Mapping[str, BenchOrder], *, runs: int) -> dict[str, list[float]]:
    """Return single runs of each way to set threads and cores, measured in turns."""
    order = next(iter(orders.values()))
    samples = contest(
        {n: o.artifact for n, o in orders.items()}, order.files, runs=runs, seed=order.seed,
        cpus={n: o.cpus for n, o in orders.items()},
    )  # fmt: skip
    return {n: s.spans["model"] for n, s in samples.items()}


def ways_to_run(order: BenchOrder, cores: Sequence[int], physical: int) -> dict[str, BenchOrder]:
    """Return an order for each thread count up to the physical cores, free and pinned to the first of `cores`."""
    found = {}
    counts = sorted({1, *(2**k for k in range(1, 8) if 2**k < physical), physical})
    for count in counts:
        options = {**order.artifact.options, "threads": count}
        artifact = replace(order.artifact, options=options)
        found[f"{count} threads"] = replace(order, artifact=artifact, cpus=())
        found[f"{count} threads pinned"] = replace(order, artifact=artifact, cpus=tuple(cores[:count]))
    return found
