"""Time a growing model in a process of its own: its first answer from a cold disk, and requests while it grows.

`python -m edgekit.runtime.growth_trial` reads one JSON order from stdin and prints one JSON answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.errors import EdgekitError
from edgekit.core.lazy import need
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact
from edgekit.core.wire import contract_from
from edgekit.measure.memory import peak_mb
from edgekit.runtime.growing import Limits, resident_mb
from edgekit.runtime.load import load

# Seconds after the start, milliseconds, step, resident MB.
Row = tuple[float, float, int, float]


def main() -> None:
    """Do one order: `first` or `grow` of a bundle, `whole` of one file."""
    order = json.load(sys.stdin)
    need(order["engine"])
    try:
        answer = {"first": _first, "grow": _grow, "whole": _whole}[order["do"]](order)
    except EdgekitError as error:
        answer = {"error": error.message}
    answer["peak_mb"] = answer.get("grown_mb") or _peak()
    sys.stdout.write(json.dumps(answer))


def _peak() -> float:
    return peak_mb() * 2**20 / 1e6


def forget(folder: Path) -> bool:
    """Drop a folder's files from the page cache, so that the next read comes from the disk; return whether it may."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in (p for p in folder.rglob("*") if p.is_file()):
        with file.open("rb") as held:
            with contextlib.suppress(OSError):
                os.fsync(held.fileno())
            os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def _first(order: dict[str, Any]) -> dict[str, Any]:
    """Time from `load` to the first answer of the student."""
    cold = forget(Path(order["bundle"])) if Path(order["bundle"]).is_dir() else False
    began = time.perf_counter()
    with load(
        order["bundle"], variant=order["variant"], threads=order.get("threads"), limits=Limits(until=0)
    ) as model:
        model.run({s.name: np.zeros(s.shape, s.dtype) for s in model.contract.inputs})
        return {"ms": (time.perf_counter() - began) * 1e3, "cold": cold, "held_mb": resident_mb()}


def _whole(order: dict[str, Any]) -> dict[str, Any]:
    """Time from nothing to the first answer of one file."""
    contract = contract_from(order["contract"])
    artifact = Artifact(
        backend=order["backend"], precision=order["precision"], main=Path(order["main"]), contract=contract,
        options=order["options"],
    )  # fmt: skip
    cold = forget(artifact.folder)
    began = time.perf_counter()
    with pick("backends", artifact.backend, what="backend").open(artifact) as session:
        session.infer({s.name: np.zeros(s.shape, s.dtype) for s in contract.inputs})
        return {"ms": (time.perf_counter() - began) * 1e3, "cold": cold, "held_mb": resident_mb()}


def _grow(order: dict[str, Any]) -> dict[str, Any]:
    """Ask at a steady rate while the model grows; then at each step that served, held there, with nothing to load."""
    limits = Limits(mb_s=order["mb_s"])
    began = time.perf_counter()
    with load(
        order["bundle"], variant=order["variant"], threads=order.get("threads"), limits=limits
    ) as model:
        growing = model.growing
        assert growing
        given = {s.name: np.zeros(s.shape, s.dtype) for s in model.contract.inputs}

        def ask(due: float) -> Row:
            growing.look(given)
            # From when it was due: a request that waits for the one before it is late, too.
            return due - began, (time.perf_counter() - due) * 1e3, growing.used.step, resident_mb() or 0.0

        rows = _until(_beats(order["hz"], order["most_s"]), ask, lambda: growing.wait(0))
        settled_at, peak, events = time.perf_counter() - began, _peak(), growing.events
        control: list[Row] = []
        steps = sorted({r[2] for r in rows} | {growing.plan.step}, reverse=True)
        for step in steps:
            growing.hold(step)
            growing.wait(order["most_s"])
            control += _until(_beats(order["hz"], order["least_s"] / len(steps)), ask, lambda: False)
        return {
            "rows": rows, "control": control, "settled_at_s": settled_at, "grown_mb": peak,
            "events": [[e.at_s, e.what, e.step, e.mask, e.why, e.bytes] for e in events],
        }  # fmt: skip


def _until(beats: Iterator[float], ask: Callable[[float], Row], ended: Callable[[], bool]) -> list[Row]:
    """Ask once a beat until something is so, or the beats end."""
    rows = []
    for due in beats:
        rows.append(ask(due))
        if ended():
            break
    return rows


def _beats(hz: float, most_s: float) -> Iterator[float]:
    """Give the times at which requests are due, each when it comes."""
    began, count = time.perf_counter(), 0
    while count / hz < most_s:
        due = began + count / hz
        time.sleep(max(0.0, due - time.perf_counter()))
        yield due
        count += 1


if __name__ == "__main__":
    main()
