"""Serve a model while it loads: answer with the student, take the teacher's stages in as they come.

A request reads the plan once and runs it to the end; the loader makes a new plan and replaces the reference in one
assignment, so that no request ever waits for a lock or meets half a plan.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.protocol import Session
from edgekit.core.errors import EdgekitError
from edgekit.plans.progressive import Growth, Segment

Arrays = Mapping[str, NDArray[Any]]
# Waits after a fault before the next try.
_AGAIN_S = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_NICE = 10
# How often memory is looked at once nothing is left to load.
_LOOK_S = 1.0


@dataclass(frozen=True)
class Part:
    """An open segment."""

    segment: Segment
    session: Session


@dataclass(frozen=True)
class Plan:
    """What runs for one request; never changed, only replaced.

    Attributes:
        step: Of the growth.
        mask: Who runs each stage.
        parts: In order.
        accuracy: Expected, as measured when the bundle was made.
    """

    step: int
    mask: str
    parts: tuple[Part, ...]
    accuracy: float | None

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return the outputs, in arrays that the next call writes over."""
        values = dict(inputs)
        given: dict[str, NDArray[Any]] = {}
        for part in self.parts:
            given = part.session.look({n: values[n] for n in part.segment.inputs})
            values.update(given)
        return given


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a growing model.

    Attributes:
        what: "answers" (the student is there), "swapped", "waits" (a fault; it tries again), "stopped" (by a budget),
            "stepped back", or "grown" (nothing is left to load).
        at_s: Seconds since loading began.
        step: The step that is served afterwards.
        mask: Its mask.
        why: In words.
        bytes: Loaded so far.
    """

    what: str
    at_s: float
    step: int
    mask: str
    why: str = ""
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What loading may take.

    Attributes:
        mb_s: Megabytes a second read from disk or network; 0 for no limit.
        memory_mb: Resident memory of this process at most; 0 for no limit. A step that would pass it is not taken.
        spare_mb: Memory of the machine that stays free; below it nothing is loaded, and the model steps back.
        until: Last step to take; None for all.
    """

    mb_s: float = 0.0
    memory_mb: float = 0.0
    spare_mb: float = 64.0
    until: int | None = None


@dataclass
class _State:
    events: list[Event] = field(default_factory=list)
    bytes: int = 0


class Growing:
    """A chain of segments that grows into the teacher; a `Session` for whoever runs it.

    Args:
        growth: What there is to load.
        opened: Fetches, checks and opens a segment.
        sample: One input, to warm segments up with before they serve.
        limits: What loading may take.
        heard: Called with each event, in the loader's thread.

    Attributes:
        used: The plan that gave the last answer of `look`.

    Raises:
        EdgekitError: The student cannot be loaded.
    """

    def __init__(
        self, growth: Growth, opened: Callable[[Segment], Session], sample: Arrays, *,
        limits: Limits | None = None, heard: Callable[[Event], None] | None = None,
    ) -> None:  # fmt: skip
        self.growth, self.limits = growth, limits or Limits()
        self._opened, self._heard = opened, heard
        self._until, self._room = self.limits.until, 1.0
        self._values = dict(sample)
        self._began = time.perf_counter()
        self._state = _State()
        self._closing, self._settled, self._wake = threading.Event(), threading.Event(), threading.Event()
        self.used = self._plan = self._made(0, ())
        self._tell("answers")
        self._thread = threading.Thread(target=self._grow, name="edgekit-loader", daemon=True)
        self._thread.start()

    @property
    def plan(self) -> Plan:
        """The plan that the next request runs."""
        return self._plan

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened so far."""
        return tuple(self._state.events)

    def metrics(self) -> dict[str, Any]:
        """Return step, mask, expected accuracy and loaded bytes, for a monitor."""
        plan = self._plan
        return {
            "stage": plan.step, "stages": len(self.growth.steps) - 1, "mask": plan.mask,
            "accuracy_expected": plan.accuracy, "bytes_loaded": self._state.bytes,
            "bytes_all": sum(s.size for s in self.growth.segments.values()),
            "settled": self._settled.is_set(), "swaps": sum(e.what == "swapped" for e in self._state.events),
        }  # fmt: skip

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing more is loaded: all is there, or a budget stops it; return whether that is so."""
        return self._settled.wait(timeout_s)

    def __enter__(self) -> Growing:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop loading and free the engines."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        parts, self.used = self._plan.parts, Plan(0, "", (), None)
        self._plan = self.used
        for part in parts:
            part.session.__exit__()

    def look(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return the outputs, in arrays that the next call writes over."""
        self.used = plan = self._plan
        return plan.run(inputs)

    def infer(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return the outputs, in arrays of their own."""
        return {n: np.array(v) for n, v in self._plan.run(inputs).items()}

    def planned(self, inputs: Arrays) -> tuple[dict[str, NDArray[Any]], Plan]:
        """Return the outputs, in arrays of their own, and the plan that gave them."""
        plan = self._plan
        return {n: np.array(v) for n, v in plan.run(inputs).items()}, plan

    def stage(self, inputs: Arrays) -> None:
        """Put the inputs in place for `run_staged`."""
        self._staged = dict(inputs)

    def run_staged(self) -> None:
        """Run on what was staged."""
        self._plan.run(self._staged)

    def hold(self, step: int | None) -> None:
        """Let the loader go to a step and stay there, back or forth; None lets it grow again."""
        self._until = step
        self._settled.clear()
        self._wake.set()

    def _made(self, step: int, held: tuple[Part, ...]) -> Plan:
        """Return a plan with its new segments fetched, checked, opened and warm."""
        there = {p.segment.name: p for p in held}
        wanted = self.growth.steps[step]
        parts = []
        for name in wanted.segments:
            part = there.get(name)
            if part is None:
                segment = self.growth.segments[name]
                part = Part(segment, self._opened(segment))
                self._state.bytes += segment.size
                # On what its neighbours gave once: sessions that serve are not run from this thread.
                given = part.session.infer({n: self._values[n] for n in segment.inputs})
                self._values |= {n: np.array(v) for n, v in given.items()}
            parts.append(part)
        return Plan(step, wanted.mask, tuple(parts), wanted.accuracy)

    def _swap(self, step: int, what: str, why: str = "") -> None:
        # Segments that nothing runs any more are freed with the last request that holds the old plan.
        self._plan = self._made(step, self._plan.parts)
        self._tell(what, why)

    def _grow(self) -> None:
        """Take one step after the other; a fault waits and tries again while the old plan serves."""
        with suppress(OSError, AttributeError):
            # Of this thread alone, on Linux: requests come first.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        faults = 0
        while not self._closing.is_set():
            try:
                wait_s = self._round()
                faults = 0
            except (EdgekitError, MemoryError) as error:
                self._tell("waits", error.message if isinstance(error, EdgekitError) else "no memory")
                wait_s = _AGAIN_S[min(faults, len(_AGAIN_S) - 1)]
                faults += 1
            if wait_s:
                self._wake.wait(wait_s)
                self._wake.clear()

    def _round(self) -> float:
        """Take one step, or none; return the seconds to wait before the next one."""
        now, until = self._plan.step, self._until
        if until is not None and now > until:
            self._swap(until, "stepped back", "asked for")
            return 0.0
        if now and (why := self._pressure()):
            self._swap(now - 1, "stepped back", why)
            self._room = 2.0
            return _LOOK_S
        step = self.growth.after(now)
        if step is None or (until is not None and step > until):
            self._settle(
                "grown" if step is None else "stopped", "" if step is None else f"asked to stay at step {now}"
            )
        elif why := self._over(step):
            self._settle("stopped", why)
        else:
            self._swap(step, "swapped")
            return 0.0
        return _LOOK_S

    def _settle(self, what: str, why: str) -> None:
        if not self._settled.is_set():
            self._tell(what, why)
            self._settled.set()

    def _pressure(self) -> str:
        """Return why the model should take less memory, empty where it need not."""
        left = available_mb()
        if left is None or left >= self.limits.spare_mb:
            return ""
        return f"memory: {left:.0f} MB are left on this machine, {self.limits.spare_mb:g} MB shall stay free"

    def _over(self, step: int) -> str:
        """Return why a step may not be taken for its memory, empty where it may."""
        held = frozenset(p.segment.name for p in self._plan.parts)
        # While an engine reads a segment, its file and its weights are there both.
        more = max((s.size for s in self.growth.new(step, held=held)), default=0) * 2 / 1e6
        own, left = resident_mb(), available_mb()
        if self.limits.memory_mb and own is not None and own + more > self.limits.memory_mb:
            return f"memory: {own:.0f} MB are held, the next step takes {more:.0f} MB, {self.limits.memory_mb:g} MB are allowed"
        if left is not None and left - more < self.limits.spare_mb * self._room:
            return f"memory: {left:.0f} MB are left on this machine, the next step takes {more:.0f} MB"
        return ""

    def _tell(self, what: str, why: str = "") -> None:
        plan = self._plan
        event = Event(
            what=what, at_s=time.perf_counter() - self._began, step=plan.step, mask=plan.mask, why=why,
            bytes=self._state.bytes,
        )  # fmt: skip
        self._state.events.append(event)
        if self._heard:
            self._heard(event)


def resident_mb() -> float | None:
    """Return the resident memory of this process in MB; None where nobody says."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 - a pseudo-file, read often
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, AttributeError):
        return None


def available_mb() -> float | None:
    """Return the memory that is left on this machine in MB; None where nobody says."""
    try:
        with open("/proc/meminfo") as file:  # noqa: PTH123 - a pseudo-file, read often
            row = next(line for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return int(row.split()[1]) * 1024 / 1e6
