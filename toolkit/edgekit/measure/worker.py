"""Time one artifact in a process of its own, on orders that come as JSON lines.

Run as `python -m edgekit.measure.worker`. Only this process holds the engine: an idle engine's
threads would slow another one in the same process.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.core.errors import EdgekitError, RecipeError
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Contract
from edgekit.core.wire import artifact_from, contract_from
from edgekit.measure.inputs import Inputs
from edgekit.measure.memory import current_mb, peak_mb
from edgekit.measure.steady import WINDOW, warm

# Runs that are thrown away after a pause: caches and clocks come back within them.
AFTER_PAUSE = 3


class Worker:
    """One open session and its inputs."""

    def __init__(self, order: dict[str, Any]) -> None:
        if order.get("cpus"):
            _pin(order["cpus"])
        self.alone = bool(order.get("alone"))
        self.paced_from_ns = self.paced_count = 0
        began = time.perf_counter_ns()
        self.contract: Contract = contract_from(order["artifact"]["contract"])
        self.artifact: Artifact = artifact_from(order["artifact"])
        self.backend = pick("backends", self.artifact.backend, what="backend")
        self.inputs = Inputs(self.contract, [Path(p) for p in order["files"]], seed=order["seed"])
        before_mb, loaded = current_mb(), time.perf_counter_ns()
        self.session = self.backend.open(self.artifact)
        opened = time.perf_counter_ns()
        self.session.infer(self.inputs.draw())
        first = time.perf_counter_ns()
        self.session.infer(self.inputs.draw())
        second = time.perf_counter_ns()
        self.facts = {
            "inputs_ms": (loaded - began) / 1e6,
            "load_ms": (opened - loaded) / 1e6,
            "first_ms": (first - opened) / 1e6,
            "second_ms": (second - first) / 1e6,
            "memory_mb": peak_mb() - before_mb,
        }

    def run(self, span: str, count: int) -> list[float]:
        """Return `count` latencies in milliseconds of one span."""
        once, given = self._once(span), self._given(span, count)
        for k in range(AFTER_PAUSE):
            once(given[k % len(given)])
        return [once(given[k % len(given)]) for k in range(count)]

    def _given(self, span: str, count: int) -> Any:
        if span == "frame_to_result":
            return [{}]
        return self.inputs.pool(count) if self.alone else self.inputs.ready(count)

    def single(self, span: str) -> float:
        """Return the latency of one run after whatever came before, in milliseconds: nothing is thrown away."""
        return self._once(span)(self.inputs.draw())

    def warm_up(self, least_s: float, limit_s: float) -> dict[str, Any]:
        """Run until steady; say how many runs it took and whether it ever was."""
        given = self._given("model", WINDOW)
        began, samples = time.monotonic(), [self._model(given[0])]
        while not warm(samples, time.monotonic() - began, least_s=least_s):
            if time.monotonic() - began > limit_s:
                return {"runs": len(samples), "steady": False}
            samples.append(self._model(given[len(samples) % len(given)]))
        return {"runs": len(samples), "steady": True}

    def paced(self, span: str, fps: float, count: int) -> list[float]:
        """Return latencies in milliseconds from the time each of the next `count` frames was due.

        A frame that is due while the one before still runs waits for it, as in MLPerf's server scenario:
        the wait is part of its latency. The schedule of the first call goes on in the next ones, so that a
        backlog is never forgiven.
        """
        once, given, found = self._once(span), self._given(span, count), []
        if not self.paced_from_ns:
            self.paced_from_ns = time.perf_counter_ns() + int(1e9 / fps)
        for k in range(count):
            due = self.paced_from_ns + int(self.paced_count * 1e9 / fps)
            self.paced_count += 1
            wait = (due - time.perf_counter_ns()) / 1e9
            if wait > 0:
                time.sleep(wait)
            once(given[k % len(given)])
            found.append((time.perf_counter_ns() - due) / 1e6)
        return found

    def _once(self, span: str) -> Callable[[Any], float]:
        return {"model": self._model, "model+copies": self._copies, "frame_to_result": self._frame}[span]

    def _model(self, given: Any) -> float:
        self.session.stage(given)
        began = time.perf_counter_ns()
        self.session.run_staged()
        return (time.perf_counter_ns() - began) / 1e6

    def _copies(self, given: Any) -> float:
        began = time.perf_counter_ns()
        self.session.infer({k: v.copy() for k, v in given.items()})
        return (time.perf_counter_ns() - began) / 1e6

    def _frame(self, _: Any) -> float:
        from edgekit.frames.prepare import prepare

        frame, spec = self.inputs.frame(), self.contract.frames
        assert spec is not None
        answers = pick("answers", self.contract.answers.task, what="task")
        name = self.contract.inputs[0].name
        began = time.perf_counter_ns()
        tensor, place = prepare(frame, spec, self.inputs.size)
        answers.answer(self.session.look({name: tensor}), self.contract.answers, place)
        return (time.perf_counter_ns() - began) / 1e6

    def receipt(self) -> list[dict[str, Any]]:
        """Return each layer as it ran, as plain rows."""
        rows = self.backend.receipt(self.artifact, self.inputs.draw())
        return [vars(r) for r in rows]


def _pin(cpus: list[int]) -> None:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise RecipeError(
            f"cores {','.join(map(str, cpus))}: cannot be used here ({error.strerror})",
            hint=f"There are: {','.join(map(str, sorted(os.sched_getaffinity(0))))}.",
        ) from error


def _answer(worker: Worker | None, order: dict[str, Any]) -> tuple[Worker | None, Any]:
    if order["do"] == "open":
        worker = Worker(order)
        return worker, worker.facts
    assert worker is not None
    if order["do"] == "warm":
        return worker, worker.warm_up(order["least_s"], order["limit_s"])
    if order["do"] == "run":
        return worker, worker.run(order["span"], order["count"])
    if order["do"] == "single":
        return worker, worker.single(order["span"])
    if order["do"] == "paced":
        return worker, worker.paced(order["span"], order["fps"], order["count"])
    return worker, worker.receipt()


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies: a stopped one never sees its stdin end."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None).prctl(set_death_signal, int(signal.SIGKILL))


def main() -> None:
    """Answer orders from stdin until it ends; engines may print, so stdout is kept apart."""
    _die_with_parent()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        try:
            worker, value = _answer(worker, json.loads(line))
            reply = {"ok": value}
        except EdgekitError as error:
            reply = {"error": error.message, "hint": error.hint, "kind": type(error).__name__}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
