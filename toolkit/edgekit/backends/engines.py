"""Keep engines built on this board: one folder a key, found again only where everything that matters is the same.

~/.cache/edgekit/engines/<key>/engine.plan      the engine
                              /meta.json        what it was built from, with what, how it went
~/.cache/edgekit/engines/timing-<board>.cache   how long kernels take here, shared by all models

Each build runs in a process of its own: TensorRT may crash, hang or be killed for memory, and the cache
stays whole.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.backends import build_engine, providers
from edgekit.backends.build_child import Work, child_of, tried
from edgekit.core.digest import digest_file, digest_value
from edgekit.core.errors import ContractError, MissingError, RecipeError
from edgekit.core.files import folder_aside, resource_errors, write_json
from edgekit.core.lock import locked
from edgekit.core.places import cache_home
from edgekit.core.records import Contract
from edgekit.core.versions import versions
from edgekit.core.watch import watcher
from edgekit.core.wire import tensor_from

PLAN, META = "engine.plan", "meta.json"
_LIMIT_S = 3600.0
_LEAST_WORKSPACE_MB = 64


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
    def provider(self) -> str:
        """Of onnxruntime, which runs the file itself; empty for an engine of TensorRT's own."""
        return str(self.meta.get("provider", ""))

    @property
    def precision(self) -> str:
        """What it was built from: int8, or the fp16 twin."""
        return str(self.meta["precision"])

    def other_than(self, precision: str) -> str:
        """Return what it is where that is not TensorRT's own engine of a precision, empty where it is."""
        if self.provider:
            return f"{self.precision}, run by onnxruntime's {self.provider}"
        return f"the {self.precision} twin" if self.precision != precision else ""

    def facts(self) -> dict[str, Any]:
        """Return what a person wants to know of it."""
        meta = self.meta
        return {
            "key": self.key, "precision": self.precision, "model": meta["model"], "mb": round(meta["bytes"] / 1e6, 2),
            "tensorrt": meta["tensorrt"], "gpu": meta["board"]["gpu"], "when": meta["when"], "seconds": meta["seconds"],
            "provider": self.provider, "attempts": list(meta["attempts"]), "plan": str(self.plan), "fresh": self.fresh,
        }  # fmt: skip


def root() -> Path:
    """Return the folder of all engines of this user."""
    return cache_home() / "engines"


def key_of(folder: Path, entry: Mapping[str, Any], board: Board) -> str:
    """Return the key of one build: the file, its options, and the board without its power mode."""
    # Whatever the file is called: the twin beside int8 and the fp16 variant's file are one.
    options = {k: v for k, v in entry.items() if k != "model"}
    said = {
        "model": digest_file(folder / str(entry["model"])), "options": options, "board": vars(replace(board, power_mode="")),
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
    entries = builds_in(folder)
    if found := next((e for entry in entries if (e := kept(key_of(folder, entry, board)))), None):
        return found
    keys = (_provider_key(folder, entries[-1], board, p) for p in providers.available())
    return next((e for key in keys if (e := kept(key))), None)


# Says why an engine of a precision is not fit for use, empty where it is.
Test = Callable[[Path, str], str]


def ensure(
    folder: Path, board: Board, *, limit_s: float = _LIMIT_S, free_mb: Callable[[], int] = build_engine.free_memory_mb,
    test: Test | None = None,
) -> Engine:  # fmt: skip
    """Return the engine of a variant's folder, built where it is not there yet.

    The first entry of build.json is tried with less and less workspace where memory runs out, then the
    next one (the fp16 twin), then onnxruntime's TensorRT and CUDA providers where it has them. Every attempt is
    in `meta`; none is silent.

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
        found, failed = _still_good(key, test, attempts)
        if found:
            return replace(
                found, meta={**found.meta, "attempts": [*map(vars, attempts), *found.meta["attempts"]]}
            )
        if failed:
            continue
        with resource_errors(place), locked(place, hint="Wait for it: it builds the same engine."):
            if found := kept(key):
                return found
            with tempfile.TemporaryDirectory(dir=root(), prefix=".build-") as room:
                work = Work(
                    folder=folder, entry=entry, out=Path(room), timings=root() / board.timing_name, limit_s=limit_s,
                )  # fmt: skip
                meta = _ladder(work, board, attempts, free_mb)
                why = test(Path(room) / PLAN, str(meta["precision"])) if meta is not None and test else ""
                if why:
                    attempts[-1] = replace(attempts[-1], outcome=why)
                    watcher().note(f"engine {entry['precision']}: {why}")
                    meta = None
                if meta is not None:
                    meta |= {"tested": test is not None, "sha256": digest_file(Path(room) / PLAN)}
                    with folder_aside(place) as aside:
                        (Path(room) / PLAN).replace(aside / PLAN)
                        write_json(aside / META, meta)
            if meta is not None:
                return Engine(key=key, folder=place, meta=meta, fresh=True)
    for provider in providers.available():
        if found := _by_provider(folder, board, provider, attempts, limit_s):
            return found
    words = "; ".join(f"{a.precision} with {a.workspace_mb} MB: {a.outcome}" for a in attempts)
    raise ContractError(
        f"no engine could be built from {folder}: {words}", hint="See the attempts; use another variant."
    )


def _still_good(key: str, test: Test | None, attempts: list[Attempt]) -> tuple[Engine | None, bool]:
    """Return a kept engine that is whole and passes, and whether one failed: what was never tried is tried now."""
    found = kept(key)
    if found is None or test is None or found.meta.get("tested"):
        return found, False
    if why := test(found.plan, found.precision):
        model = str(found.meta["model"])
        attempts.append(Attempt(model=model, precision=found.precision, workspace_mb=0, outcome=why))
        watcher().note(f"engine {found.precision} in the cache: {why}")
        shutil.rmtree(found.folder)
        return None, True
    tested = {**found.meta, "tested": True}
    write_json(found.folder / META, tested)
    return replace(found, meta=tested), False


def builds_in(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a folder's build.json, the wanted one first.

    Raises:
        RecipeError: There is none, or a file it names was changed or is missing.
    """
    found: list[dict[str, Any]] = _said_in(folder, "builds")
    for entry in found:
        path = folder / str(entry["model"])
        if not path.is_file() or digest_file(path) != entry["sha256"]:
            raise RecipeError(
                f"{path}: is missing or was changed since it was compiled", hint="Fetch the bundle again."
            )
    return found


def contract_in(folder: Path) -> Contract:
    """Return what an engine of a folder's build.json takes and gives.

    Raises:
        RecipeError: There is no such file, or it does not say.
    """
    inputs, outputs = (tuple(map(tensor_from, _said_in(folder, key))) for key in ("inputs", "outputs"))
    return Contract(inputs=inputs, outputs=outputs)


def _said_in(folder: Path, key: str) -> Any:
    """Return one part of a folder's build.json.

    Raises:
        RecipeError: There is no such file, or it lacks that part.
    """
    try:
        return json.loads((folder / "build.json").read_text())[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{folder / 'build.json'}: cannot be read ({error})", hint="Fetch the bundle again."
        ) from None


def kept(key: str) -> Engine | None:
    """Return an engine of the cache, None where there is none or it is damaged."""
    folder = root() / key
    try:
        meta = json.loads((folder / META).read_text())
        whole = (folder / PLAN).stat().st_size == meta["bytes"] and digest_file(folder / PLAN) == meta[
            "sha256"
        ]
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


def _ladder(
    work: Work, board: Board, attempts: list[Attempt], free_mb: Callable[[], int]
) -> dict[str, Any] | None:
    """Try one entry with less and less workspace while memory is what is missing."""
    workspace = build_engine.workspace_mb(int(work.entry.get("workspace_mb", 1024)), free_mb())
    while True:
        begun = time.perf_counter()
        said, outcome, memory = tried(work, workspace, free_mb)
        seconds = round(time.perf_counter() - begun, 1)
        attempts.append(
            Attempt(
                model=str(work.entry["model"]), precision=str(work.entry["precision"]), workspace_mb=workspace,
                outcome=outcome, seconds=seconds,
            )
        )  # fmt: skip
        watcher().note(f"engine {work.entry['precision']}, workspace {workspace} MB: {outcome}")
        if said is not None:
            return {**said, **_story(board, work.entry, attempts)}
        if not memory or workspace <= _LEAST_WORKSPACE_MB:
            return None
        workspace = max(workspace // 2, _LEAST_WORKSPACE_MB)


def _provider_key(folder: Path, entry: Mapping[str, Any], board: Board, provider: str) -> str:
    said = [key_of(folder, entry, board), provider, versions("onnxruntime", "onnxruntime-gpu")]
    return digest_value(said)[:32]


def _by_provider(
    folder: Path, board: Board, provider: str, attempts: list[Attempt], limit_s: float
) -> Engine | None:
    """Let onnxruntime's provider take the last entry (what TensorRT refuses in it goes to CUDA or the CPU)."""
    entry = builds_in(folder)[-1]
    place = root() / _provider_key(folder, entry, board, provider)
    if found := kept(place.name):
        return found
    model, precision = folder / str(entry["model"]), str(entry["precision"])
    inputs = _said_in(folder, "inputs")
    with (
        resource_errors(place),
        locked(place, hint="Wait for it: it builds the same engine."),
        tempfile.TemporaryDirectory(dir=root(), prefix=".build-") as room,
    ):
        begun = time.perf_counter()
        order = {
            "model": str(model), "provider": provider, "cache": f"{room}/cache", "inputs": inputs, "half": precision != "fp32",
        }  # fmt: skip
        said, why = child_of(providers.__name__, order, limit_s)
        outcome = (
            f"{provider}: {why}"
            if why
            else f"built by onnxruntime's {provider}, {said['own']:.0%} of the time in it"
        )
        one = Attempt(
            model=model.name, precision=precision, workspace_mb=0, outcome=outcome, seconds=round(time.perf_counter() - begun, 1),
        )  # fmt: skip
        attempts.append(one)
        watcher().note(f"engine {precision}: {outcome}")
        if why:
            return None
        meta = {
            **said, "provider": provider, "precision": precision, "model": model.name, "bytes": len(provider), "seconds": one.seconds,
            "tensorrt": f"by onnxruntime {said['onnxruntime']}, {provider}", **_story(board, entry, attempts),
        }  # fmt: skip
        with folder_aside(place) as aside:
            (Path(room) / "cache").replace(aside / "cache")
            (aside / PLAN).write_text(provider)
            meta["sha256"] = digest_file(aside / PLAN)
            write_json(aside / META, meta)
    return Engine(key=place.name, folder=place, meta=meta, fresh=True)


def _story(board: Board, entry: Mapping[str, Any], attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return what `meta` says of any engine: where, from what, after which attempts, when."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"board": vars(board), "entry": dict(entry), "attempts": [vars(a) for a in attempts], "when": when}


def built(
    folder: Path, *, power_mode: str = "", limit_s: float = _LIMIT_S, test: Test | None = None
) -> dict[str, Any]:
    """Return what is known of the engine of a variant's folder, built on this board where it is not there yet.

    Raises:
        EdgekitError: As `probed` and `ensure`.
    """
    board = replace(probed(), power_mode=power_mode)
    note = refuse_other_version(folder, board.tensorrt)
    found = ensure(folder, board, limit_s=limit_s, test=test)
    warned = [w for w in (note, same_power(found, board)) if w]
    return {**found.facts(), "warning": "; ".join(warned)}


def refuse_other_version(folder: Path, tensorrt: str) -> str:
    """Return a warning where files were written for another minor version than the board's.

    Raises:
        RecipeError: They were written for another major version, which knows other files.
    """
    wanted = str(_said_in(folder, "target")["tensorrt"])
    if wanted.split(".", maxsplit=1)[0] != tensorrt.split(".", maxsplit=1)[0]:
        raise RecipeError(
            f"{folder}: was compiled for TensorRT {wanted}, this board has {tensorrt}",
            hint=f"Compile it with --tensorrt {'.'.join(tensorrt.split('.')[:3])}.",
        )
    same = wanted.split(".")[:2] == tensorrt.split(".")[:2]
    return "" if same else f"compiled for TensorRT {wanted}, this board has {tensorrt}"


def same_power(engine: Engine, board: Board) -> str:
    """Return a warning where an engine was built in another power mode, empty where not."""
    built = str(engine.meta["board"].get("power_mode", ""))
    if built == board.power_mode or not built or not board.power_mode:
        return ""
    return (
        f"built in power mode {built}, this is {board.power_mode}: its kernels were chosen for other clocks"
    )
