"""Time artifacts against each other: one process each, taking turns, the others stopped."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core import errors
from edgekit.core.child import environment
from edgekit.core.digest import plain
from edgekit.core.errors import DeviceError, EdgekitError, ResourceError
from edgekit.core.records import Artifact
from edgekit.core.watch import watcher
from edgekit.machine.probe import emulator
from edgekit.measure.steady import patience

# A burst is long enough that the runs thrown away after a pause do not matter: at least this many
# runs, and at least this long.
BURST, BURST_MS = 16, 60.0
# A model of microseconds need not fill the mode's seconds: this many times the mode's runs suffice.
_PLENTY = 20
# Emulated code is never steady, and its latencies are no claim: no use in waiting for it.
EMULATED_WARM_S = 4.0
# What a bound on p99 needs.
_OTHER_RUNS = 662


class Contender:
    """A worker process with one artifact. Between its turns it is stopped, so that it cannot spin.

    Args:
        artifact: What it runs.
        files: Frames its inputs are drawn from; none means random inputs.
        seed: Of the inputs.
        cpus: Cores to pin it to; none leaves that to the system.
        alone: Nobody else takes turns, so that it need not be stopped.
        command: Another worker than edgekit's own, for experiments.
    """

    def __init__(
        self, artifact: Artifact, files: Sequence[Path], *, seed: int = 0, cpus: Sequence[int] = (), alone: bool = False,
        command: Sequence[str] = ("-m", "edgekit.measure.worker"),
    ) -> None:  # fmt: skip
        self._alone = alone
        # A file and not a pipe: an engine that prints a line each run would fill one and wait for ever.
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `close` ends it with the process
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=environment(),
        )
        order = {
            "do": "open", "artifact": plain(artifact), "files": [str(f) for f in files], "seed": seed,
            "cpus": list(cpus), "alone": alone,
        }  # fmt: skip
        try:
            self.facts: dict[str, float] = self._ask(order)
        except BaseException:
            self.close()
            raise
        self.pause()

    def __enter__(self) -> Contender:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def warm_up(self, *, least_s: float = 2.0, limit_s: float = 60.0) -> dict[str, Any]:
        """Run until steady, for `limit_s` seconds at most or what the environment allows."""
        # Ended before `least_s`, it is not called steady.
        limit_s = min(limit_s, patience())
        found: dict[str, Any] = self._turn({"do": "warm", "least_s": least_s, "limit_s": limit_s})
        return found

    def run(self, span: str, count: int) -> list[float]:
        """Return `count` latencies in milliseconds."""
        found: list[float] = self._turn({"do": "run", "span": span, "count": count})
        return found

    def single(self, span: str) -> float:
        """Return the latency of one run in milliseconds, the first after a rest."""
        found: float = self._turn({"do": "single", "span": span})
        return found

    def paced(self, span: str, fps: float, count: int) -> list[float]:
        """Return latencies in milliseconds from the time each of `count` frames was due."""
        found: list[float] = self._turn({"do": "paced", "span": span, "fps": fps, "count": count})
        return found

    def receipt(self) -> list[dict[str, Any]]:
        """Return each layer as it ran."""
        found: list[dict[str, Any]] = self._turn({"do": "receipt"})
        return found

    def pause(self) -> None:
        """Stop the process until its next turn."""
        if not self._alone:
            self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process, stopped or not."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _turn(self, order: dict[str, Any]) -> Any:
        if not self._alone:
            self._process.send_signal(signal.SIGCONT)
        try:
            return self._ask(order)
        finally:
            self.pause()

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._said.seek(0)
            said = self._said.read()[-4096:].strip().splitlines()
            if self._process.wait() == -signal.SIGKILL:
                raise ResourceError(
                    "the measuring process was ended from outside, most likely for lack of memory",
                    hint="Free memory, or use a smaller model.",
                )
            raise DeviceError(
                f"the measuring process ended ({said[-1] if said else 'no message'})",
                hint="Run again with --debug, and report what it says.",
            )
        reply = json.loads(line)
        if "error" in reply:
            kind: type[EdgekitError] = getattr(errors, reply["kind"], EdgekitError)
            raise kind(reply["error"], hint=reply["hint"])
        return reply["ok"]


@dataclass(kw_only=True)
class Sample:
    """What one contender was measured to take, by span, with the facts of its start."""

    spans: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    steady: bool = True
    receipt: list[dict[str, Any]] = field(default_factory=list)


def contest(
    artifacts: Mapping[str, Artifact],
    files: Sequence[Path],
    *,
    runs: int,
    seconds: float = 0.0,
    limit_s: float = 600.0,
    spans: Sequence[str] = ("model",),
    receipts: bool = False,
    seed: int = 0,
    cpus: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Sample]:
    """Measure the artifacts in alternating bursts of shuffled order; return a sample for each.

    Args:
        artifacts: Contenders by name.
        files: Frames their inputs are drawn from; none means random inputs.
        runs: Runs of the first span each contender gets at least.
        seconds: Measured time each contender gets at least.
        limit_s: The contest ends after this long, whatever was reached.
        spans: The first is measured to `runs` and `seconds`, the others to `runs` or 662, what p99 needs.
        receipts: Profile each contender afterwards.
        seed: Of the order and the inputs.
        cpus: Cores to pin contenders to, by name.
    """
    samples: dict[str, Sample] = {}
    patience_s = EMULATED_WARM_S if emulator() else min(60.0, limit_s / 4)
    with ExitStack() as stack:
        rivals: dict[str, Contender] = {}
        for name, artifact in artifacts.items():
            watcher().step("starting engines", len(rivals) + 1, len(artifacts))
            rivals[name] = stack.enter_context(
                Contender(artifact, files, seed=seed, cpus=(cpus or {}).get(name, ()))
            )
            samples[name] = Sample(facts=dict(rivals[name].facts))
            samples[name].steady = bool(rivals[name].warm_up(limit_s=patience_s)["steady"])
        rng = random.Random(seed)  # noqa: S311 - an order, no secret
        for k, span in enumerate(spans):
            done = _enough(runs, seconds) if k == 0 else _enough(min(runs, _OTHER_RUNS), 0)
            _bursts(rivals, samples, span, done, limit_s, rng)
        if receipts:
            for name, rival in rivals.items():
                samples[name].receipt = rival.receipt()
    return samples


def _enough(runs: int, seconds: float) -> Callable[[list[float]], float]:
    """Return a function that gives the share of the work a sample has done, 1.0 when all."""

    def share(sample: list[float]) -> float:
        by_time = sum(sample) / 1000 / seconds if seconds else 1.0
        by_time = max(by_time, len(sample) / (_PLENTY * runs))
        return min(len(sample) / runs, by_time, 1.0)

    return share


def burst(sample: Sequence[float], *, least_ms: float = BURST_MS) -> int:
    """Return how many runs the next burst has."""
    if not sample:
        return BURST
    usual = sum(sample[-BURST:]) / len(sample[-BURST:])
    return min(max(BURST, round(least_ms / max(usual, 1e-3))), 64 * BURST)


def _bursts(
    rivals: Mapping[str, Contender],
    samples: Mapping[str, Sample],
    span: str,
    done: Callable[[list[float]], float],
    limit_s: float,
    rng: random.Random,
) -> None:
    """Let the rivals take turns at one span until each has enough."""
    began = time.monotonic()
    while time.monotonic() - began < limit_s:
        waiting = [n for n in rivals if done(samples[n].spans.setdefault(span, [])) < 1.0]
        if not waiting:
            return
        order = list(rivals)
        rng.shuffle(order)
        for name in order:
            found = rivals[name].run(span, burst(samples[name].spans[span]))
            samples[name].spans[span].extend(found)
        share = min(done(samples[n].spans[span]) for n in rivals)
        watcher().step(f"measuring {span}", round(share * 100), 100)
