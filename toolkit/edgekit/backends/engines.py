"""Keep engines built on this board: one folder a key, found again only where everything that matters is the same.

~/.cache/edgekit/engines/<key>/engine.plan      the engine
                              /meta.json        what it was built from, with what, how it went
~/.cache/edgekit/engines/timing-<board>.cache   how long kernels take here, shared by all models

Each build runs in a process of its own: TensorRT may crash, hang or be killed for memory, and the cache
stays whole.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.backends import build_engine
from edgekit.core.digest import digest_file, digest_value
from edgekit.core.errors import ContractError, MissingError, RecipeError, ResourceError
from edgekit.core.files import folder_aside, resource_errors, write_json
from edgekit.core.lock import locked
from edgekit.core.places import cache_home
from edgekit.core.watch import Watcher, watcher

PLAN, META = "engine.plan", "meta.json"
_LIMIT_S = 3600.0
_LEAST_WORKSPACE_MB = 64
# Left to the system while a build runs.
_SPARE_MB = 300
_LOOK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Board:
    """What an engine depends on, as probed.

    Attributes:
        gpu: Name that the driver gives.
        compute_capability: Such as "8.7".
        sm: Streaming multiprocessors: modules of one compute capability differ in them.
        cuda: Version of the driver's CUDA.
        tensorrt: Version with build number.
        power_mode: For the record; another one only warns.
    """

    gpu: str
    compute_capability: str
    sm: int
    cuda: str
    tensorrt: str
    power_mode: str = ""

    @property
    def timing_name(self) -> str:
        """Name of the timing cache: per TensorRT, compute capability and GPU."""
        said = [self.tensorrt, self.compute_capability, self.gpu, self.sm]
        return f"timing-{digest_value(said)[:16]}.cache"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a build: what was tried, and what came of it in words."""

    model: str
    precision: str
    workspace_mb: int
    outcome: str
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine in the cache.

    Attributes:
        key: Over all that it depends on.
        folder: With `engine.plan` and `meta.json`.
        meta: What was built, with what, and every attempt before.
        fresh: Whether it was built just now.
    """

    key: str
    folder: Path
    meta: Mapping[str, Any]
    fresh: bool = False

    @property
    def plan(self) -> Path:
        """The engine's file."""
        return self.folder / PLAN

    @property
    def precision(self) -> str:
        """What it was built from: int8, or the fp16 twin."""
        return str(self.meta["precision"])

    def facts(self) -> dict[str, Any]:
        """Return what a person wants to know of it."""
        meta = self.meta
        return {
            "key": self.key, "precision": self.precision, "model": meta["model"], "mb": round(meta["bytes"] / 1e6, 2),
            "tensorrt": meta["tensorrt"], "gpu": meta["board"]["gpu"], "when": meta["when"], "seconds": meta["seconds"],
            "attempts": list(meta["attempts"]), "plan": str(self.plan), "fresh": self.fresh,
        }  # fmt: skip


def root() -> Path:
    """Return the folder of all engines of this user."""
    return cache_home() / "engines"


def key_of(folder: Path, entry: Mapping[str, Any], board: Board) -> str:
    """Return the key of one build: the file, its options, and the board without its power mode."""
    said = {
        "model": digest_file(folder / str(entry["model"])), "options": dict(entry), "board": vars(replace(board, power_mode="")),
        "calibration": digest_file(folder / str(entry["calibration"])) if entry.get("calibration") else "",
    }  # fmt: skip
    return digest_value(said)[:32]


def probed() -> Board:
    """Return this board as its driver and its TensorRT tell it; the driver is asked first.

    Raises:
        MissingError: No driver, no GPU, or no TensorRT for this Python.
    """
    try:
        facts = build_engine.probe()
        return Board(**facts, tensorrt=build_engine.tensorrt_version())
    except build_engine.BuildError as error:
        raise MissingError(
            f"no TensorRT can be used here: {error}",
            hint="On a Jetson: sudo apt install nvidia-jetpack, and a venv made with --system-site-packages.",
        ) from None


def found_for(folder: Path) -> Engine | None:
    """Return the engine that was built on this board from a variant's folder, the wanted one first."""
    board = probed()
    return next((e for entry in builds_in(folder) if (e := kept(key_of(folder, entry, board)))), None)


def _last_json(text: str) -> dict[str, Any]:
    """Return the JSON object in the last line, an empty one where there is none."""
    try:
        found: dict[str, Any] = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return found


# Says why an engine of a precision is not fit for use, empty where it is.
Test = Callable[[Path, str], str]


def ensure(
    folder: Path, board: Board, *, limit_s: float = _LIMIT_S, free_mb: Callable[[], int] = build_engine.free_memory_mb,
    test: Test | None = None,
) -> Engine:  # fmt: skip
    """Return the engine of a variant's folder, built where it is not there yet.

    The first entry of build.json is tried with less and less workspace where memory runs out, then the
    next one (the fp16 twin). Every attempt is in `meta`; none is silent.

    Args:
        folder: With `build.json` and its ONNX files.
        board: As probed.
        limit_s: Longest time of one attempt.
        free_mb: Tells the memory that is free.
        test: Tries a new engine; one that fails is not kept, and the next entry is built.

    Raises:
        RecipeError: build.json is none.
        ContractError: No entry could be built; all attempts are named.
        ResourceError: Another process builds this one, or the disk is full.
    """
    attempts: list[Attempt] = []
    for entry in builds_in(folder):
        key = key_of(folder, entry, board)
        place = root() / key
        if found := kept(key):
            return replace(
                found, meta={**found.meta, "attempts": [*map(vars, attempts), *found.meta["attempts"]]}
            )
        with resource_errors(place), locked(place, hint="Wait for it: it builds the same engine."):
            if found := kept(key):
                return found
            with tempfile.TemporaryDirectory(dir=root(), prefix=".build-") as room:
                work = _Work(folder=folder, entry=entry, board=board, out=Path(room), limit_s=limit_s)
                meta = _ladder(work, attempts, free_mb)
                if meta is not None and test and (why := test(Path(room) / PLAN, str(meta["precision"]))):
                    attempts[-1] = replace(attempts[-1], outcome=why)
                    watcher().note(f"engine {meta['precision']}: {why}")
                    meta = None
                if meta is not None:
                    with folder_aside(place) as aside:
                        (Path(room) / PLAN).replace(aside / PLAN)
                        write_json(aside / META, meta)
            if meta is not None:
                return Engine(key=key, folder=place, meta=meta, fresh=True)
    words = "; ".join(f"{a.precision} with {a.workspace_mb} MB: {a.outcome}" for a in attempts)
    raise ContractError(
        f"no engine could be built from {folder}: {words}", hint="See the attempts; use another variant."
    )


@dataclass(frozen=True, kw_only=True)
class _Work:
    folder: Path
    entry: Mapping[str, Any]
    board: Board
    out: Path
    limit_s: float


def builds_in(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a folder's build.json, the wanted one first.

    Raises:
        RecipeError: There is none, or a file it names was changed or is missing.
    """
    try:
        found: list[dict[str, Any]] = json.loads((folder / "build.json").read_text())["builds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{folder / 'build.json'}: cannot be read ({error})", hint="Fetch the bundle again."
        ) from None
    for entry in found:
        path = folder / str(entry["model"])
        if not path.is_file() or digest_file(path) != entry["sha256"]:
            raise RecipeError(
                f"{path}: is missing or was changed since it was compiled", hint="Fetch the bundle again."
            )
    return found


def kept(key: str) -> Engine | None:
    """Return an engine of the cache, None where there is none or it is damaged."""
    folder = root() / key
    try:
        meta = json.loads((folder / META).read_text())
        whole = (folder / PLAN).stat().st_size == meta["bytes"]
    except (OSError, ValueError, KeyError):
        return None
    return Engine(key=key, folder=folder, meta=meta) if whole else None


def listed() -> list[Engine]:
    """Return every engine of the cache, newest first."""
    found = [e for p in root().glob("*/") if (e := kept(p.name))]
    return sorted(found, key=lambda e: str(e.meta["when"]), reverse=True)


def clear(keys: Sequence[str] = ()) -> int:
    """Remove engines by the beginnings of their keys, or all with the timing caches; return how many.

    Raises:
        RecipeError: There is none of a key.
    """
    known = listed()
    for key in keys:
        if not any(e.key.startswith(key) for e in known):
            raise RecipeError(f"no engine {key!r}", hint="See `edgekit engine list`.")
    found = [e for e in known if not keys or any(e.key.startswith(k) for k in keys)]
    for one in found:
        with locked(one.folder, hint="Wait for it: it is being built."):
            shutil.rmtree(one.folder)
    if not keys:
        for path in root().glob("timing-*.cache"):
            path.unlink(missing_ok=True)
    return len(found)


def _ladder(work: _Work, attempts: list[Attempt], free_mb: Callable[[], int]) -> dict[str, Any] | None:
    """Try one entry with less and less workspace while memory is what is missing."""
    workspace = build_engine.workspace_mb(int(work.entry.get("workspace_mb", 1024)), free_mb())
    while True:
        begun = time.perf_counter()
        said, outcome = _try(work, workspace, free_mb)
        seconds = round(time.perf_counter() - begun, 1)
        attempts.append(
            Attempt(
                model=str(work.entry["model"]), precision=str(work.entry["precision"]), workspace_mb=workspace,
                outcome=outcome, seconds=seconds,
            )
        )  # fmt: skip
        watcher().note(f"engine {work.entry['precision']}, workspace {workspace} MB: {outcome}")
        if said is not None:
            return {
                **said, "board": vars(work.board), "entry": dict(work.entry), "attempts": [vars(a) for a in attempts],
                "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }  # fmt: skip
        if "memory" not in outcome or workspace <= _LEAST_WORKSPACE_MB:
            return None
        workspace = max(workspace // 2, _LEAST_WORKSPACE_MB)


def _try(work: _Work, workspace: int, free_mb: Callable[[], int]) -> tuple[dict[str, Any] | None, str]:
    """Build once in a child; return what it said, or None, and the outcome in words."""
    words = [
        sys.executable, "-m", build_engine.__name__, "--folder", str(work.folder), "--entry", str(work.entry["model"]), "--no-probe",
        "--out", str(work.out / PLAN), "--workspace-mb", str(workspace), "--timing-cache", str(root() / work.board.timing_name),
    ]  # fmt: skip
    heard: list[str] = []
    others: list[str] = []
    # The agent runs from an archive that only its own sys.path names.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as child:
        # A watcher belongs to its thread, and the listener is another.
        listener = threading.Thread(target=_listen, args=(child, watcher(), heard, others), daemon=True)
        listener.start()
        told = _reader(child)
        ended = _watch(child, work.limit_s, free_mb)
        listener.join(timeout=5)
        output = told()
    phase = heard[-1] if heard else "start"
    if ended:
        return None, f"{ended} (phase {phase})"
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        why = "killed, most likely for lack of memory" if name == "SIGKILL" else f"crashed with {name}"
        return None, f"{why} (phase {phase})"
    said = _last_json(output)
    if not said:
        return None, f"its process ended with {child.returncode} (phase {phase}): {''.join(others[-1:])}"
    if child.returncode == build_engine.NO_SPACE:
        raise ResourceError(
            f"{root()}: {said['error']}", hint="Free space there: `edgekit engine clear` removes engines."
        )
    if child.returncode == build_engine.NO_MEMORY:
        return None, f"out of memory: {said['error']}"
    if child.returncode:
        return None, str(said.get("error", "no reason given"))
    return said, "built"


def _listen(child: subprocess.Popen[str], told: Watcher, heard: list[str], others: list[str]) -> None:
    """Hear the phases that a child tells on stderr, and keep what else it says."""
    assert child.stderr
    for line in child.stderr:
        if line.startswith("phase "):
            _, phase, *steps = line.split()
            if steps:
                told.step("engine: build", int(steps[0]), int(steps[1]))
                continue
            heard.append(phase)
            told.phase(f"engine: {phase}")
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


def built(
    folder: Path, *, power_mode: str = "", limit_s: float = _LIMIT_S, test: Test | None = None
) -> dict[str, Any]:
    """Return what is known of the engine of a variant's folder, built on this board where it is not there yet.

    Raises:
        EdgekitError: As `probed` and `ensure`.
    """
    board = replace(probed(), power_mode=power_mode)
    found = ensure(folder, board, limit_s=limit_s, test=test)
    return {**found.facts(), "warning": same_power(found, board)}


def same_power(engine: Engine, board: Board) -> str:
    """Return a warning where an engine was built in another power mode, empty where not."""
    built = str(engine.meta["board"].get("power_mode", ""))
    if built == board.power_mode or not built or not board.power_mode:
        return ""
    return (
        f"built in power mode {built}, this is {board.power_mode}: its kernels were chosen for other clocks"
    )
