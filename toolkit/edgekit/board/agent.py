"""Answer a host: what this board is, take files and orders, carry them out, hand over results.

Run as `python3 agent.pyz COMMAND ROOT …`. Every answer is one line on stdout, `edgekit-reply` and JSON, so that
what a login shell prints beside it does no harm.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.board.depot import Depot
from edgekit.board.hold import held, holder, is_held
from edgekit.board.orders import Order, order_from
from edgekit.core.errors import EdgekitError, ResourceError
from edgekit.core.files import resource_errors, write_json
from edgekit.core.watch import watched_by
from edgekit.machine.probe import passport

MARK = "edgekit-reply"
# An order that killed its worker this often is given up: it would do so for ever.
_TRIES = 3
_KEEP_BYTES = 2_000_000_000
_TAKEN_S = 1.0
# One for all users and folders of a board.
_LOCK = Path("/tmp/edgekit-board.lock")  # noqa: S108 - shared on purpose; it holds no secret and grants nothing


def hello(depot: Depot, lock: Path) -> dict[str, Any]:
    """Return version, passport, space, holder of the board, and orders that are waiting or done."""
    depot.make()
    from edgekit.core.lazy import have

    return {
        "agent": Path(sys.argv[0]).stem, "passport": passport(), "free_mb": depot.free_mb(), "holder": holder(lock),
        "decoder": have("cv2") or have("PIL"), "numpy": have("numpy"), "clock": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "waiting": sorted(p.stem for p in depot.orders.glob("*.json")),
        "done": sorted(p.stem for p in depot.results.glob("*.json")),
    }  # fmt: skip


def status(depot: Depot, lock: Path, identity: str, patience_s: float) -> dict[str, Any]:
    """Return how far an order is, after `patience_s` or when it is done; one without a worker gets one.

    The host asks seldom and lets this wait: a Python that starts every second would be seen in the latencies.
    """
    if depot.state(identity) == "waiting":
        start_worker(depot, lock)
    ends = time.monotonic() + patience_s
    while depot.state(identity) == "waiting" and time.monotonic() < ends:
        time.sleep(0.2)
    return {"state": depot.state(identity), "progress": depot.progress(identity), "holder": holder(lock)}


def submit(depot: Depot, lock: Path, text: str, *, wait: bool) -> dict[str, Any]:
    """Keep an order and start the worker.

    Raises:
        ResourceError: Another user or order has the board, and the host did not ask to wait.
    """
    order = order_from(text)
    depot.make()
    found = holder(lock)
    if found is not None and not wait and found.get("order") != order.id:
        with held(lock, who=order.who, order=order.id):
            pass
    depot.submit(order)
    start_worker(depot, lock)
    return {"state": depot.state(order.id)}


def start_worker(depot: Depot, lock: Path) -> None:
    """Start the worker where none is, apart from this session, so that a cut line does not end it."""
    if is_held(depot.root / "worker.lock"):
        return
    log = (depot.root / "worker.log").open("ab")
    with log:
        subprocess.Popen(
            [sys.executable, *_myself(), "worker", str(depot.root), "--lock", str(lock)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip


def _myself() -> list[str]:
    """Return the words that start this agent again: the zipapp, or the module of a checkout."""
    program = Path(sys.argv[0]).resolve()
    return [str(program)] if program.suffix == ".pyz" else ["-m", "edgekit.board.agent"]


def worker(depot: Depot, lock: Path) -> None:
    """Carry out waiting orders until there are none; one worker a folder, one measurement a board."""
    import fcntl

    with (depot.root / "worker.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        while order := next(depot.waiting(), None):
            try:
                with held(lock, who=order.who, order=order.id):
                    _one(depot, order)
            except ResourceError:
                time.sleep(_TAKEN_S)
        depot.sweep(_KEEP_BYTES)


def _one(depot: Depot, order: Order) -> None:
    """Carry out one order and write its result, whatever comes of it."""
    tries = depot.tries(order)
    if tries > _TRIES:
        depot.finish(order, _given_up(depot.oom_kills_since(order)))
        return
    try:
        from edgekit.board.work import carry_out

        with resource_errors(depot.root), watched_by(_Written(depot, order.id)):
            body = {"ok": carry_out(order, depot.arrange(order)), "tries": tries}
    except EdgekitError as error:
        body = _failed(type(error).__name__, error.message, error.hint, error.exit_code)
    except Exception as error:  # noqa: BLE001 - the host must hear of a bug here, too
        import traceback

        traceback.print_exc()
        body = _failed("bug", f"{type(error).__name__}: {error}", "See worker.log in the agent's folder.", 1)
    depot.finish(order, body)


def _given_up(oom_kills: int) -> dict[str, Any]:
    if oom_kills:
        words = f"out of memory on the device: the kernel ended the run {_TRIES} times"
        return _failed("ResourceError", words, "Free memory there, or use a smaller model.", 8)
    words = f"the run was ended from outside {_TRIES} times"
    return _failed("DeviceError", words, "See worker.log in the agent's folder, and the board's log.", 5)


def _failed(kind: str, message: str, hint: str, code: int) -> dict[str, Any]:
    return {"error": {"kind": kind, "message": message, "hint": hint, "exit_code": code}}


class _Written:
    """Writes a run's progress where `status` finds it, at most twice a second."""

    def __init__(self, depot: Depot, identity: str) -> None:
        self._path = depot.work / identity / "progress.json"
        self._last, self._phase = 0.0, ""

    def phase(self, name: str) -> None:
        """A stage begins."""
        self._phase, self._last = name, 0.0
        self.step("", 0, 0)

    def step(self, name: str, done: int, total: int) -> None:
        """Write how far it is."""
        if time.monotonic() - self._last > 0.5:
            self._last = time.monotonic()
            write_json(self._path, {"phase": self._phase, "name": name, "done": done, "total": total})

    def note(self, text: str) -> None:
        """Do nothing: notes stand in the result."""


def unlock(lock: Path) -> dict[str, Any]:
    """End whoever holds the board, if this user may; its order waits and is begun again on the next call."""
    found = holder(lock)
    if found and "pid" in found:
        try:
            os.killpg(os.getpgid(int(found["pid"])), signal.SIGKILL)
        except ProcessLookupError:
            pass
        except PermissionError:
            raise ResourceError(
                f"the board is held by {found['who']}, whose process this user may not end",
                hint="Ask them, or log in as that user.",
            ) from None
    return {"held_by": found}


def engines() -> dict[str, Any]:
    """Return each installed engine with its version, and whether it starts, tried in a process of its own."""
    found = {}
    for name, version in passport()["engines"].items() if "engines" in passport() else ():
        code = f"from edgekit.core.lazy import need; need({name!r})"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
        )
        why = done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else f"exit {done.returncode}"
        found[name] = {
            "version": version,
            "works": done.returncode == 0,
            "why": "" if done.returncode == 0 else why,
        }
    return {"engines": found}


def unpack(root: Path, names: list[str]) -> dict[str, Any]:
    """Unpack wheels among the blobs into `site`, which the agent's Python then sees; no pip is needed."""
    import shutil
    import zipfile

    aside, final = root / "site.part", root / "site"
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        shutil.copytree(final, aside)
    for name in names:
        with zipfile.ZipFile(root / "blobs" / name) as wheel:
            wheel.extractall(aside)
    old = root / "site.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    aside.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    return {"site": str(final)}


def answered(words: list[str]) -> dict[str, Any]:
    """Return the reply to one call."""
    command, root = words[0], Path(words[1]).expanduser().resolve()
    lock = Path(words[words.index("--lock") + 1]) if "--lock" in words else _LOCK
    depot, rest = Depot(root), [w for w in words[2:] if w not in {"--lock", str(lock), "--wait"}]
    calls: dict[str, Callable[[], dict[str, Any] | None]] = {
        "hello": partial(hello, depot, lock),
        "wanted": lambda: {"wanted": depot.wanted(json.loads(sys.stdin.read()))},
        "take": lambda: _take(depot, rest),
        "take-pack": lambda: {"taken": depot.take_pack(sys.stdin.buffer)},
        "submit": lambda: submit(depot, lock, sys.stdin.read(), wait="--wait" in words),
        "status": lambda: status(depot, lock, rest[0], float(rest[1])),
        "fetch": lambda: dict(json.loads((depot.results / f"{rest[0]}.json").read_text())),
        "forget": partial(depot.forget, *rest[:1]),
        "unlock": partial(unlock, lock),
        "engines": engines,
        "unpack": lambda: unpack(root, json.loads(sys.stdin.read())),
        "worker": partial(worker, depot, lock),
    }
    with resource_errors(root):
        return calls[command]() or {}


def _take(depot: Depot, words: list[str]) -> dict[str, Any]:
    depot.take(words[0], int(words[1]), int(words[2]), sys.stdin.buffer)
    return {}


def main() -> None:
    """Answer one call."""
    sys.path.insert(0, str(Path(sys.argv[2]).expanduser().resolve() / "site"))
    try:
        reply = answered(sys.argv[1:])
    except EdgekitError as error:
        reply = _failed(type(error).__name__, error.message, error.hint, error.exit_code)
    print(f"{MARK} {json.dumps(reply)}", flush=True)


if __name__ == "__main__":
    main()
