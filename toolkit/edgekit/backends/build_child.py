"""Build one entry of build.json in a process of its own: TensorRT may crash, hang or be killed for memory."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.backends import build_engine
from edgekit.core.child import environment
from edgekit.core.errors import ResourceError
from edgekit.core.watch import Watcher, watcher

# Left to the system while a build runs.
_SPARE_MB = 300
_LOOK_S = 0.2
_PHASE = re.compile(r"phase (?P<phase>[a-z]+)(?: (?P<done>\d+) (?P<total>\d+))?")


@dataclass(frozen=True, kw_only=True)
class Work:
    """One entry to build, where, and for how long at most."""

    folder: Path
    entry: Mapping[str, Any]
    out: Path
    timings: Path
    limit_s: float


def tried(work: Work, workspace: int, free_mb: Callable[[], int]) -> tuple[dict[str, Any] | None, str, bool]:
    """Build once in a child; return what it said or None, the outcome in words, and whether memory was missing."""
    words = [
        sys.executable, "-m", build_engine.__name__, "--folder", str(work.folder), "--entry", str(work.entry["model"]), "--no-probe",
        "--out", str(work.out / "engine.plan"), "--workspace-mb", str(workspace), "--timing-cache", str(work.timings),
    ]  # fmt: skip
    heard: list[str] = []
    others: list[str] = []
    env = environment()
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env=env
    ) as child:
        # A watcher belongs to its thread, and the listener is another.
        listener = threading.Thread(target=_listen, args=(child, watcher(), heard, others), daemon=True)
        listener.start()
        told = _reader(child)
        ended = _watch(child, work.limit_s, free_mb)
        listener.join(timeout=5)
        output = told()
    phase = heard[-1] if heard else "start"
    if ended:
        return None, f"{ended} (phase {phase})", "memory" in ended
    return _outcome(work, child.returncode, output, phase, "".join(others[-1:]))


def _outcome(
    work: Work, code: int, output: str, phase: str, last: str
) -> tuple[dict[str, Any] | None, str, bool]:
    """Say what a child's exit code and output mean, as `tried` does."""
    if code < 0:
        name = signal.Signals(-code).name
        why = "killed, most likely for lack of memory" if name == "SIGKILL" else f"crashed with {name}"
        return None, f"{why} (phase {phase})", name == "SIGKILL"
    said = last_json(output)
    if not said:
        return None, f"its process ended with {code} (phase {phase}): {last}", False
    if code == build_engine.NO_SPACE:
        raise ResourceError(
            f"{work.timings.parent}: {said['error']}",
            hint="Free space there: `edgekit engine clear` removes engines.",
        )
    if code == build_engine.NO_MEMORY:
        return None, f"out of memory: {said['error']}", True
    if code:
        return None, str(said.get("error", "no reason given")), False
    return said, "built", False


def _listen(child: subprocess.Popen[str], told: Watcher, heard: list[str], others: list[str]) -> None:
    """Hear the phases that a child tells on stderr, and keep what else it says."""
    assert child.stderr
    for line in child.stderr:
        # What NVIDIA's libraries print may stand on the same line.
        if found := _PHASE.fullmatch(line.strip()):
            if found["total"]:
                told.step("engine: build", int(found["done"]), int(found["total"]))
                continue
            heard.append(found["phase"])
            told.phase(f"engine: {found['phase']}")
        elif line.strip():
            others.append(line.strip())


def _reader(child: subprocess.Popen[str]) -> Callable[[], str]:
    """Read a child's stdout beside, so that it never waits for us; the function returns it whole."""
    assert child.stdout
    parts: list[str] = []
    stream = child.stdout
    thread = threading.Thread(target=lambda: parts.append(stream.read()), daemon=True)
    thread.start()

    def whole() -> str:
        thread.join(timeout=5)
        return "".join(parts)

    return whole


def _watch(child: subprocess.Popen[str], limit_s: float, free_mb: Callable[[], int]) -> str:
    """Wait for a child; end it where it takes too long or the board runs out of memory, and say so."""
    end = time.monotonic() + limit_s
    why = ""
    while child.poll() is None:
        if time.monotonic() > end:
            why = f"no end after {limit_s:g} s"
        elif 0 < free_mb() < _SPARE_MB:
            why = f"ended: less than {_SPARE_MB} MB of memory were left"
        if why:
            child.kill()
            child.wait()
            return why
        time.sleep(_LOOK_S)
    return ""


def last_json(text: str) -> dict[str, Any]:
    """Return the JSON object in the last line, an empty one where there is none."""
    try:
        found: dict[str, Any] = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return found


def child_of(module: str, order: Mapping[str, Any], limit_s: float) -> tuple[dict[str, Any], str]:
    """Run a module of ours on one JSON object; return what it said, and what went wrong, empty where nothing did."""
    env = environment()
    try:
        ran = subprocess.run(
            [sys.executable, "-m", module], input=json.dumps(dict(order)), capture_output=True, text=True, env=env,
            timeout=limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {}, f"no end after {limit_s:g} s"
    if ran.returncode < 0:
        return {}, f"crashed with {signal.Signals(-ran.returncode).name}"
    said = last_json(ran.stdout)
    if not said:
        return {}, f"its process ended with {ran.returncode}: {''.join(ran.stderr.strip().splitlines()[-1:])}"
    return said, str(said.get("error", ""))
