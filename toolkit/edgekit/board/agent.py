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
from edgekit.board.hold import LOCK, held, holder, unusable
from edgekit.board.orders import Order, order_from
from edgekit.core.child import environment
from edgekit.core.errors import EdgekitError, ResourceError
from edgekit.core.files import json_text, resource_error, resource_errors, write_json
from edgekit.core.watch import watched_by
from edgekit.machine.probe import passport

MARK = "edgekit-reply"
# An order that killed its worker this often is given up: it would do so for ever.
_TRIES = 3
_KEEP_BYTES = 2_000_000_000
_TAKEN_S, _LOOK_S, _LINGER_S = 1.0, 0.2, 5.0


def hello(depot: Depot, lock: Path) -> dict[str, Any]:
    """Return version, passport, space, holder of the board, and orders that are waiting or done."""
    depot.make()
    from edgekit.core.lazy import have

    return {
        "passport": passport(), "free_mb": depot.free_mb(), "holder": holder(lock),
        "decoder": have("cv2") or have("PIL"), "numpy": have("numpy"), "clock": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "waiting": sorted(p.stem for p in depot.orders.glob("*.json")),
        "done": sorted(p.stem for p in depot.results.glob("*.json")),
    }  # fmt: skip


def status(depot: Depot, lock: Path, identity: str, patience_s: float) -> dict[str, Any]:
    """Return how far an order is, after `patience_s` or when it is done, then with its result, which stays here.

    One that waits without a worker gets one.

    The host asks seldom and lets this wait: a Python that starts every second would be seen in the latencies.
    """
    if depot.state(identity) == "waiting":
        start_worker(depot, lock)
    ends = time.monotonic() + patience_s
    while depot.state(identity) == "waiting" and time.monotonic() < ends:
        time.sleep(_LOOK_S)
    return {
        "state": depot.state(identity), "progress": depot.progress(identity), "holder": holder(lock),
        "result": depot.result(identity),
    }  # fmt: skip


def submit(depot: Depot, lock: Path, text: str, *, wait: bool) -> dict[str, Any]:
    """Keep an order and start the worker.

    Raises:
        ResourceError: Another user or order has the board, and the host did not ask to wait.
    """
    order = order_from(text)
    depot.make()
    found = holder(lock)
    # A second try of a host that did not hear the first answer is not refused: its order is here.
    if found is not None and not wait and not depot.state(order.id):
        with held(lock, who=order.who, order=order.id):
            pass
    depot.submit(order)
    start_worker(depot, lock)
    return {"state": depot.state(order.id)}


def start_worker(depot: Depot, lock: Path) -> None:
    """Start the worker where none is, apart from this session, so that a cut line does not end it."""
    if holder(depot.root / "worker.lock") is not None:
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


def worker(depot: Depot, lock: Path, *, linger_s: float = 0.0) -> None:
    """Carry out waiting orders until there were none for a while; one worker a folder, one measurement a board.

    A compile sends one order after the other: to start Python and numpy for each took longer than most of them.
    """
    import fcntl

    with (depot.root / "worker.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        ends = time.monotonic() + linger_s
        while (order := next(depot.waiting(), None)) or time.monotonic() < ends:
            if order is None:
                time.sleep(_LOOK_S)
                continue
            if why := unusable(lock):
                words = f"{lock}: cannot be used as the board's lock ({why})"
                depot.finish(
                    order, _failed("ResourceError", words, "Set `lock` of the device to another file.", 8)
                )
                continue
            try:
                with held(lock, who=order.who, order=order.id):
                    _one(depot, order)
            except ResourceError:
                time.sleep(_TAKEN_S)
            ends = time.monotonic() + linger_s
        depot.sweep(_KEEP_BYTES)


def _one(depot: Depot, order: Order) -> None:
    """Carry out one order and write its result, whatever comes of it."""
    try:
        tries = depot.tries(order)
        if tries > _TRIES:
            depot.finish(order, _given_up(depot.oom_kills_since(order)))
            return
        from edgekit.board.work import carry_out

        with resource_errors(depot.root), watched_by(_Written(depot, order.id)):
            body = {"ok": carry_out(order, depot.arrange(order)), "tries": tries}
            # What JSON has no word for (a NaN of a broken model) shall be heard of now, not when it is written.
            json_text(body)
    except Exception as error:  # noqa: BLE001 - the host must hear of a bug here, too
        body = _answer_of(error, depot.root)
    depot.finish(order, body)


def _answer_of(error: Exception, root: Path) -> dict[str, Any]:
    """Return an error as the host reads it; one that was not planned leaves its traceback in the log."""
    planned = resource_error(error, root) if isinstance(error, OSError) else error
    if isinstance(planned, EdgekitError):
        return _failed(type(planned).__name__, planned.message, planned.hint, planned.exit_code)
    import traceback

    traceback.print_exc()
    return _failed("bug", f"{type(error).__name__}: {error}", "See worker.log in the agent's folder.", 1)


def _given_up(oom_kills: int) -> dict[str, Any]:
    if oom_kills > 0:
        words = f"out of memory on the device: the kernel ended {oom_kills} processes, the run {_TRIES} times"
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


def unlock(depot: Depot, lock: Path) -> dict[str, Any]:
    """End the run that holds the board, if it is an agent's and this user may; its order is given up."""
    found = holder(lock)
    if found and "pid" in found:
        _refuse_foreign(int(found["pid"]), str(found["who"]))
        try:
            os.killpg(os.getpgid(int(found["pid"])), signal.SIGKILL)
        except PermissionError:
            raise ResourceError(
                f"the board is held by {found['who']}, whose process this user may not end",
                hint="Ask them, or log in as that user.",
            ) from None
        except ProcessLookupError:
            return {"held_by": found}
        ended = next((o for o in depot.waiting() if o.id == found.get("order")), None)
        if ended:
            depot.finish(ended, _failed("ResourceError", "the run was ended by unlock", "Start it again.", 8))
    return {"held_by": found}


def _refuse_foreign(pid: int, who: str) -> None:
    """Refuse to end a process that is no agent's: what stands in a lock may be old, or somebody's joke.

    Raises:
        ResourceError: It is none.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return
    if b"worker" not in words:
        raise ResourceError(
            f"the board is held by {who}, and process {pid} is no agent's worker", hint="Ask them to end it."
        )


def engines() -> dict[str, Any]:
    """Return each installed engine with its version, and whether it starts, tried in a process of its own."""
    found = {}
    for name, version in passport()["engines"].items() if "engines" in passport() else ():
        code = f"from edgekit.core.lazy import need; need({name!r})"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False
        )
        why = done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else f"exit {done.returncode}"
        found[name] = {
            "version": version,
            "works": done.returncode == 0,
            "why": "" if done.returncode == 0 else why,
        }
    return {"engines": found}


def unpack(root: Path, names: list[str], lock: Path) -> dict[str, Any]:
    """Unpack wheels among the blobs into `site`, which the agent's Python then sees; no pip is needed.

    Raises:
        ResourceError: Somebody measures with what is there now.
    """
    with held(lock, who="provision", order=""):
        return _unpacked(root, names)


def _unpacked(root: Path, names: list[str]) -> dict[str, Any]:
    import shutil
    import zipfile

    aside, final = root / "site.part", root / "site"
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        shutil.copytree(final, aside)
    for name in names:
        with zipfile.ZipFile(root / "blobs" / name) as wheel:
            # An older version's files and its name would stay beside the new one's.
            for top in {n.partition("/")[0] for n in wheel.namelist()}:
                package, _, kind = top.rpartition(".")
                pattern = f"{package.partition('-')[0]}-*.{kind}" if kind in {"dist-info", "data"} else top
                for old in aside.glob(pattern):
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
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
    lock = Path(words[words.index("--lock") + 1]) if "--lock" in words else Path(LOCK)
    depot, rest = Depot(root), [w for w in words[2:] if w not in {"--lock", str(lock), "--wait"}]
    calls: dict[str, Callable[[], dict[str, Any] | None]] = {
        "hello": partial(hello, depot, lock),
        "wanted": lambda: {"wanted": depot.wanted(json.loads(sys.stdin.read()))},
        "take": lambda: _take(depot, rest),
        "take-pack": lambda: {"taken": depot.take_pack(sys.stdin.buffer)},
        "submit": lambda: submit(depot, lock, sys.stdin.read(), wait="--wait" in words),
        "status": lambda: status(depot, lock, rest[0], float(rest[1])),
        "forget": partial(depot.forget, *rest[:1]),
        "unlock": partial(unlock, depot, lock),
        "engines": engines,
        "unpack": lambda: unpack(root, json.loads(sys.stdin.read()), lock),
        "worker": partial(worker, depot, lock, linger_s=_LINGER_S),
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
    except Exception as error:  # noqa: BLE001 - whatever it is, the host must not take this for silence
        reply = _answer_of(error, Path(sys.argv[2]))
    print(f"{MARK} {json.dumps(reply)}", flush=True)


if __name__ == "__main__":
    main()
