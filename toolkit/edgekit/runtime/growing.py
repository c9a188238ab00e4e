"""Serve a model while it loads: answer with the student, take the teacher's stages in as they come.

A request reads the plan once and runs it to the end; the loader makes a new plan and replaces the reference in one
assignment, so that no request ever waits for a lock or meets half a plan.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.protocol import Session
from edgekit.core.errors import EdgekitError, LinkError, RecipeError, ResourceError
from edgekit.plans.progressive import Growth, Segment

Arrays = Mapping[str, NDArray[Any]]
# Waits after a fault before the next try.
_AGAIN_S = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_NICE = 10
# How often memory is looked at once nothing is left to load.
_LOOK_S = 1.0
# How often a thread that waits for another looks whether it shall end.
_CHECK_S = 0.05
# Breaks of a line that `whole` waits out.
_PATIENT = 3
# Segments of the student that are opened at once.
_SIDE_BY_SIDE = 4


@dataclass(frozen=True)
class Part:
    """An open segment."""

    segment: Segment
    session: Session


@dataclass(frozen=True)
class Served:
    """What answered; holds no engine, so that keeping it keeps nothing loaded.

    Attributes:
        step: Of the growth.
        mask: Who runs each stage.
        accuracy: Expected, as measured when the bundle was made.
    """

    step: int
    mask: str
    accuracy: float | None


@dataclass(frozen=True)
class Plan:
    """What runs for one request; never changed, only replaced.

    Attributes:
        served: Its step, mask and accuracy.
        parts: In order.
    """

    served: Served
    parts: tuple[Part, ...]

    @property
    def step(self) -> int:
        """Of the growth."""
        return self.served.step

    @property
    def mask(self) -> str:
        """Who runs each stage."""
        return self.served.mask

    @property
    def accuracy(self) -> float | None:
        """Expected, as measured when the bundle was made."""
        return self.served.accuracy

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

    def __post_init__(self) -> None:
        if min(self.mb_s, self.memory_mb, self.spare_mb) < 0 or (self.until is not None and self.until < 0):
            raise RecipeError(f"limits: {self} has a number below 0", hint="Give 0 or more.")


@dataclass
class _State:
    events: list[Event] = field(default_factory=list)
    # Segments that were opened once.
    loaded: set[str] = field(default_factory=set)
    # Steps that were taken up to now: the way back.
    path: list[int] = field(default_factory=lambda: [0])
    # What was opened for a step that then failed.
    spare: dict[str, Part] = field(default_factory=dict)
    fault: EdgekitError | None = None
    faults: int = 0


class Growing:
    """A chain of segments that grows into the teacher; a `Session` for whoever runs it.

    Args:
        growth: What there is to load.
        opened: Opens a segment whose files are here.
        sample: One input, to warm segments up with before they serve.
        fetched: Brings a segment's files here and checks them, until the event is set; None where they are here.
        limits: What loading may take.
        heard: Called with each event, in the loader's thread.

    Attributes:
        used: What gave the last answer of `look`.

    Raises:
        EdgekitError: The student cannot be loaded.
    """

    def __init__(
        self, growth: Growth, opened: Callable[[Segment], Session], sample: Arrays, *,
        fetched: Callable[[Segment, threading.Event], None] | None = None,
        limits: Limits | None = None, heard: Callable[[Event], None] | None = None,
    ) -> None:  # fmt: skip
        self.growth, self.limits = growth, limits or Limits()
        self._opened, self._fetched, self._heard = opened, fetched, heard
        self._until, self._room = self.limits.until, 1.0
        self._values = dict(sample)
        self._began = time.perf_counter()
        self._state = _State()
        self._closing, self._settled, self._wake = threading.Event(), threading.Event(), threading.Event()
        self._plan = self._first()
        self.used = self._plan.served
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
            "accuracy_expected": plan.accuracy, "bytes_loaded": self._bytes(),
            "bytes_all": sum(s.size for s in self.growth.segments.values()),
            "settled": self._settled.is_set(), "swaps": sum(e.what == "swapped" for e in self._state.events),
        }  # fmt: skip

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing more is loaded: all is there, or a budget stops it; return whether that is so."""
        return self._settled.wait(timeout_s)

    def whole(self) -> None:
        """Wait until the last step serves.

        Raises:
            EdgekitError: A fault that waiting does not mend, or a budget, keeps it from that.
        """
        while not self._settled.wait(_CHECK_S):
            fault = self._state.fault
            if fault and (self._state.faults >= _PATIENT or not isinstance(fault, LinkError)):
                raise fault
        if self.growth.after(self._plan.step) is not None:
            why = self._state.events[-1].why
            raise ResourceError(
                f"the model stays at step {self._plan.step} ({self._plan.mask}): {why}",
                hint="Free memory, or raise the limit.",
            )

    def __enter__(self) -> Growing:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop loading and free the engines."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        parts = (*self._plan.parts, *self._state.spare.values())
        self._plan = Plan(self.used, ())
        for part in parts:
            part.session.__exit__()

    def look(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return the outputs, in arrays that the next call writes over."""
        plan = self._plan
        self.used = plan.served
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
        """Let the loader go to a step and stay there, back or forth; None lets it grow again.

        Raises:
            RecipeError: There is no such step.
        """
        if step is not None and not 0 <= step < len(self.growth.steps):
            raise RecipeError(f"hold: there is no step {step}", hint=f"0 to {len(self.growth.steps) - 1}.")
        self._until = step
        self._settled.clear()
        self._wake.set()

    def _first(self) -> Plan:
        """Return the student's plan; its segments are opened side by side, each as soon as it is here."""
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            opening = []
            for name in self.growth.steps[0].segments:
                segment = self.growth.segments[name]
                if self._fetched:
                    self._fetched(segment, self._closing)
                opening.append((segment, pool.submit(self._opened, segment)))
            self._state.spare = {s.name: self._warmed(s, o.result()) for s, o in opening}
        return self._made(0, ())

    def _made(self, step: int, held: tuple[Part, ...]) -> Plan:
        """Return a plan with its new segments fetched, checked, opened and warm."""
        there = {p.segment.name: p for p in held} | self._state.spare
        wanted = self.growth.steps[step]
        parts = []
        for name in wanted.segments:
            part = there.get(name)
            if part is None:
                segment = self.growth.segments[name]
                self._fetch(segment)
                part = self._state.spare[name] = self._warmed(segment, self._opened(segment))
            parts.append(part)
        self._state.spare = {}
        return Plan(Served(step, wanted.mask, wanted.accuracy), tuple(parts))

    def _warmed(self, segment: Segment, session: Session) -> Part:
        part = Part(segment, session)
        # On what its neighbours gave once: sessions that serve are not run from this thread.
        given = part.session.infer({n: self._values[n] for n in segment.inputs})
        self._values |= {n: np.array(v) for n, v in given.items()}
        self._state.loaded.add(segment.name)
        return part

    def _fetch(self, segment: Segment) -> None:
        """Bring a segment here in a thread of low priority: requests are served meanwhile.

        An engine's own threads inherit the priority of whoever opens it, so this thread keeps its own.
        """
        if self._fetched is None:
            return
        low = _Low(self._fetched, segment, self._closing)
        low.start()
        while low.is_alive() and not self._closing.is_set():
            low.join(_CHECK_S)
        if low.failed:
            raise low.failed
        if self._closing.is_set():
            raise LinkError("loading was ended", hint="Nothing is to be done.")

    def _swap(self, step: int, what: str, why: str = "") -> None:
        # Segments that nothing runs any more are freed with the last request that holds the old plan.
        self._plan = self._made(step, self._plan.parts)
        self._state.path = [*(s for s in self._state.path if s < step), step]
        self._settled.clear()
        self._tell(what, why)

    def _grow(self) -> None:
        """Take one step after the other; a fault waits and tries again while the old plan serves."""
        while not self._closing.is_set():
            try:
                wait_s = self._round()
                self._state.fault, self._state.faults = None, 0
            except Exception as error:  # noqa: BLE001 - whatever it is, requests go on and it is told
                if self._closing.is_set():
                    return
                wait_s = self._failed(error)
            if wait_s:
                self._wake.wait(wait_s)
                self._wake.clear()

    def _failed(self, error: Exception) -> float:
        """Tell what went wrong, and return the seconds until the next try."""
        if not isinstance(error, EdgekitError):
            why = "no memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
            error = ResourceError(why, hint="Free memory or disk; loading tries again.")
        wait_s = _AGAIN_S[min(self._state.faults, len(_AGAIN_S) - 1)]
        self._state.fault, self._state.faults = error, self._state.faults + 1
        self._tell("waits", error.message)
        return wait_s

    def _round(self) -> float:
        """Take one step, or none; return the seconds to wait before the next one."""
        now, until = self._plan.step, self._until
        if until is not None and now > until:
            self._swap(until, "stepped back", "asked for")
            return 0.0
        if now and (why := self._pressure()):
            # The way it came: a dip that was jumped over is no place to go back to.
            self._swap(max((s for s in self._state.path if s < now), default=0), "stepped back", why)
            self._room = 2.0
            return _LOOK_S
        step = self.growth.after(now)
        if step is None or (until is not None and step > until):
            why = "" if step is None else f"asked to stay at step {now}"
            self._settle("grown" if step is None else "stopped", why, until)
        elif why := self._over(step):
            self._settle("stopped", why, until)
        else:
            self._swap(step, "swapped")
            return 0.0
        return _LOOK_S

    def _settle(self, what: str, why: str, until: int | None) -> None:
        if not self._settled.is_set():
            self._tell(what, why)
            self._settled.set()
            if self._until != until:
                # `hold` asked for something else meanwhile.
                self._settled.clear()

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
        sizes = [s.size for s in self.growth.new(step, held=held)] or [0]
        more = (sum(sizes) + max(sizes)) / 1e6
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
            bytes=self._bytes(),
        )  # fmt: skip
        self._state.events.append(event)
        if self._heard:
            try:
                self._heard(event)
            except Exception as error:  # noqa: BLE001 - an app's mistake is shown as Python shows it, and loading goes on
                given = (type(error), error, error.__traceback__, threading.current_thread())
                threading.excepthook(threading.ExceptHookArgs(given))

    def _bytes(self) -> int:
        return sum(self.growth.segments[n].size for n in self._state.loaded)


class _Low(threading.Thread):
    """Work in a thread of low priority (Linux): requests come first."""

    def __init__(self, work: Callable[..., None], *given: Any) -> None:
        super().__init__(name="edgekit-fetch", daemon=True)
        self._work, self._given = work, given
        self.failed: Exception | None = None

    def run(self) -> None:
        """Do it; keep what went wrong for whoever waits."""
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            self._work(*self._given)
        except Exception as error:  # noqa: BLE001 - raised again in the loader
            self.failed = error


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
