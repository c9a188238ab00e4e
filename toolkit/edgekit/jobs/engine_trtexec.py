"""Build engines with a board's own trtexec over its connection: for boards whose Python is too old for the agent.

On the board: ~/.cache/edgekit-engines/<key>/ with the files of one entry, `log`, `exit`, and in the end
`engine.plan` and `layers.json`. A build goes on when the line is cut; the next call finds it.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.backends.build_engine import OUT_OF_MEMORY, workspace_mb
from edgekit.backends.engines import Attempt, builds_in
from edgekit.backends.trt_trtexec import PLACES, command
from edgekit.core.digest import digest_file, digest_value
from edgekit.core.errors import ContractError, MissingError, ResourceError
from edgekit.core.watch import watcher
from edgekit.devices.agents import retried
from edgekit.devices.jetpacks import version_of
from edgekit.devices.protocol import Connection

_ROOT = ".cache/edgekit-engines"
_LEAST_WORKSPACE_MB = 64
_NO_MEMORY = "out of memory"
_LOOK_S = 2.0
# How often a build may look ended without a word, before it is: it may just be starting.
_SILENT = 5
# One line a fact; what is missing says nothing.
_ASK = (
    'echo "board $(tr -d "\\0" < /proc/device-tree/model 2>/dev/null)"; '
    'echo "tensorrt $(dpkg-query -W -f "\\${Version}" "libnvinfer[0-9]*" 2>/dev/null | head -1)"; '
    'echo "free $(sed -n "s/MemAvailable: *\\([0-9]*\\).*/\\1/p" /proc/meminfo)"; '
    f'for t in {" ".join(PLACES)}; do p=$(command -v $t) && echo "trtexec $p" && break; done; true'
)


def built_by_trtexec(name: str, connection: Connection, folder: Path, *, limit_s: float) -> dict[str, Any]:
    """Build the engine of a variant's folder with the board's trtexec, or find it there.

    Args:
        name: Of the board, for messages.
        connection: To it.
        folder: Local, with `build.json` and its ONNX files.
        limit_s: Longest time of one attempt.

    Raises:
        MissingError: The board has no trtexec, or does not say which TensorRT it has.
        ContractError: Nothing could be built; every attempt is named.
        DeviceError: The line stays cut; the build goes on there.
    """
    board = _facts(name, connection)
    attempts: list[Attempt] = []
    for entry in builds_in(folder):
        found = _ladder(_Place(name, connection, folder, entry, board), attempts, limit_s)
        if found:
            return {
                "precision": entry["precision"], "model": entry["model"], "tensorrt": board["tensorrt"], "gpu": board["board"],
                "attempts": [vars(a) for a in attempts], "seconds": attempts[-1].seconds if attempts else 0.0,
                "fresh": bool(attempts), "warning": "", "by": board["trtexec"], **found,
            }  # fmt: skip
    words = "; ".join(f"{a.precision} with {a.workspace_mb} MB: {a.outcome}" for a in attempts)
    raise ContractError(f"{name}: trtexec built no engine: {words}", hint=f"See {_ROOT}/*/log there.")


def _facts(name: str, connection: Connection) -> dict[str, str]:
    ran = retried(lambda: connection.run(["sh", "-c", _ASK]))
    found = dict(line.split(" ", 1) for line in ran.out.splitlines() if " " in line)
    if "trtexec" not in found:
        raise MissingError(
            f"{name}: has no trtexec", hint="It comes with JetPack: sudo apt install libnvinfer-bin."
        )
    if not found.get("tensorrt", "").strip():
        raise MissingError(
            f"{name}: does not say which TensorRT it has", hint="Is libnvinfer installed as a package?"
        )
    return {**found, "tensorrt": found["tensorrt"].partition("-")[0]}


class _Place:
    """One entry's folder on the board, and the calls that work in it."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        local: Path,
        entry: Mapping[str, Any],
        board: Mapping[str, str],
    ) -> None:
        self.name, self._connection, self.local, self.entry, self.board = (
            name,
            connection,
            local,
            entry,
            board,
        )
        files = [str(entry["model"]), *([str(entry["calibration"])] if entry.get("calibration") else [])]
        self.files = {f: digest_file(local / f) for f in files}
        said = {
            "files": self.files,
            "entry": dict(entry),
            "board": {k: board.get(k) for k in ("board", "tensorrt")},
        }
        self.folder = f"{_ROOT}/{digest_value(said)[:32]}"

    def shell(self, script: str) -> str:
        """Return what a script says there, in the folder.

        Raises:
            ResourceError: It fails, for lack of space as a rule.
        """
        whole = f"mkdir -p {self.folder} && cd {self.folder} && {script}"
        ran = retried(lambda: self._connection.run(["sh", "-c", whole]))
        if ran.code:
            last = (ran.err.strip().splitlines() or ["no reason given"])[-1]
            raise ResourceError(f"{self.name}: {last}", hint=f"Free space there, or remove {_ROOT}.")
        return ran.out

    def send(self) -> None:
        """Put the entry's files there, each aside and renamed when its hash is right."""
        for file, sha256 in self.files.items():
            have = self.shell(f"sha256sum {shlex.quote(file)} 2>/dev/null | cut -d' ' -f1; true").strip()
            if have == sha256:
                continue
            watcher().phase(f"{self.name}: sending {file}")
            # Aside under a name of its own: a second host may be sending the same file.
            script = (
                f'cd {self.folder} && find . -name "*.sent" -mmin +60 -delete; aside={shlex.quote(file)}.$$.sent; '
                f'cat > "$aside" && [ "$(sha256sum < "$aside" | cut -d" " -f1)" = {sha256} ] && '
                f'mv "$aside" {shlex.quote(file)} || {{ rm -f "$aside"; exit 1; }}'
            )
            ran = retried(lambda f=file, s=script: self._connection.put(self.local / f, ["sh", "-c", s]))  # type: ignore[misc]
            if ran.code:
                raise ResourceError(
                    f"{self.name}: {file} did not arrive whole", hint="Free space there and try again."
                )

    def state(self) -> dict[str, str]:
        """Return what there is: an engine's size, a running build, or how the last one ended."""
        said = self.shell(
            '[ -f engine.plan ] && echo "engine $(wc -c < engine.plan)"; [ -f exit ] && echo "exit $(cat exit)"; '
            "flock -n lock true || echo 'running yes'; true"
        )
        return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)

    def start(self, workspace: int) -> None:
        """Start trtexec there, under a lock that lives as long as it does."""
        words = command(
            self.entry, version_of(self.board["tensorrt"]), folder=".", engine="engine.part", timing_cache=f"../timing-{self.board['tensorrt']}.cache",
            layers="layers.json", workspace_mb=workspace, trtexec=self.board["trtexec"],
        )  # fmt: skip
        # Whoever waits for the lock finds the engine of whoever had it.
        # Its process id is its group's: `setsid` gave it one of its own.
        inner = f"echo $$ > pid; [ -f engine.plan ] || {{ {shlex.join(words)} > log 2>&1 && mv engine.part engine.plan; }}; echo $? > exit"
        self.shell(
            f"rm -f exit && (nohup flock -w 5 lock setsid -w sh -c {shlex.quote(inner)} >/dev/null 2>&1 </dev/null &)"
        )

    def log(self) -> str:
        """Return the end of the build's log."""
        return self.shell("tail -c 3000 log 2>/dev/null; true")


def _ladder(place: _Place, attempts: list[Attempt], limit_s: float) -> dict[str, Any]:
    """Return the engine of one entry, tried with less and less workspace; nothing where it cannot be built."""
    free = int(place.board.get("free") or 0) // 1024
    workspace = workspace_mb(int(place.entry.get("workspace_mb", 1024)), free)
    while True:
        state = place.state()
        if "engine" in state:
            return {
                "plan": f"{place.folder}/engine.plan",
                "mb": round(int(state["engine"]) / 1e6, 2),
                "key": place.folder[-32:],
                "when": "",
            }
        begun = time.monotonic()
        if "running" not in state:
            place.send()
            place.start(workspace)
        outcome = _waited(place, limit_s)
        attempts.append(
            Attempt(
                model=str(place.entry["model"]), precision=str(place.entry["precision"]), workspace_mb=workspace, outcome=outcome,
                seconds=round(time.monotonic() - begun, 1),
            )
        )  # fmt: skip
        watcher().note(f"{place.name}: {place.entry['precision']}, workspace {workspace} MB: {outcome}")
        if outcome == "built":
            continue
        if outcome != _NO_MEMORY or workspace <= _LEAST_WORKSPACE_MB:
            return {}
        workspace = max(workspace // 2, _LEAST_WORKSPACE_MB)


def _waited(place: _Place, limit_s: float) -> str:
    """Wait for a build there; return its outcome in words."""
    end, silent = time.monotonic() + limit_s, 0
    watcher().phase(f"{place.name}: trtexec builds")
    while True:
        state = place.state()
        if "exit" in state and "running" not in state:
            break
        silent = 0 if "running" in state else silent + 1
        if silent > _SILENT:
            return "ended without a word: was the board restarted?"
        if time.monotonic() > end:
            place.shell("kill -9 -- -$(cat pid) 2>/dev/null; true")
            return f"no end after {limit_s:g} s"
        time.sleep(_LOOK_S)
    if state["exit"] == "0":
        return "built"
    log = place.log()
    errors = [x for x in log.splitlines() if "[E]" in x]
    if (
        state["exit"] in {"137", "9"}
        or any(OUT_OF_MEMORY.search(x) for x in errors)
        or "std::bad_alloc" in log
    ):
        return _NO_MEMORY
    lines = errors or log.splitlines() or [f"exit {state['exit']}"]
    return lines[0].rpartition("[E]")[2].strip()[:300]
