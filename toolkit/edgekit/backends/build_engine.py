"""Build a TensorRT engine from a bundle's files on the board that will run it.

edgekit uses this file, and every bundle with TensorRT files carries it: it needs Python 3.8 or later, numpy and the
board's own `tensorrt`, nothing else.

    python3 build_engine.py                  # build.json beside it, engine.plan into the same folder
    python3 build_engine.py --out /tmp/e.plan --workspace-mb 512 --entry fp16.onnx

What TensorRT offers is asked of its module (8.5 to 11 differ), never guessed from a version number.
Exit codes: 0 built, 2 bad input, 5 parse or build refused, 6 out of memory, 7 no driver or no TensorRT, 8 the disk is
full or may not be written.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUILT, BAD_INPUT, REFUSED, NO_MEMORY, NO_DRIVER, NO_SPACE = 0, 2, 5, 6, 7, 8
# Said in errors; warnings of it belong to healthy builds, which skip a kernel that wants too much.
OUT_OF_MEMORY = re.compile(
    r"out of memory|outofmemory|insufficient memory|cuda error 2\b|failed to allocate|cudaerrormemoryallocation|std::bad_alloc",
    re.IGNORECASE,
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_ATTRIBUTES = {"major": 75, "minor": 76, "sm": 16}


class BuildError(Exception):
    """Nothing was built; `code` says why in a number."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


def probe(load: Callable[[str], Any] = ctypes.CDLL) -> dict[str, Any]:
    """Return name, compute capability, SM count and driver of the first GPU, asked of the driver itself.

    TensorRT crashes where there is no driver, so this comes first.

    Raises:
        BuildError: There is no driver, or no GPU.
    """
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        raise BuildError(NO_DRIVER, "no NVIDIA driver: libcuda.so.1 is not there") from None
    if code := cuda.cuInit(0):
        raise BuildError(NO_DRIVER, f"the NVIDIA driver does not start: cuInit returned {code}")
    count, version = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        raise BuildError(NO_DRIVER, "the NVIDIA driver sees no GPU")
    cuda.cuDriverGetVersion(ctypes.byref(version))
    name = ctypes.create_string_buffer(128)
    cuda.cuDeviceGetName(name, 128, 0)
    found = {}
    for word, number in _ATTRIBUTES.items():
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, 0)
        found[word] = value.value
    return {
        "gpu": name.value.decode(), "compute_capability": f"{found['major']}.{found['minor']}", "sm": found["sm"],
        "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
    }  # fmt: skip


def free_memory_mb(meminfo: str = "/proc/meminfo") -> int:
    """Return the memory that is free for the taking, in MB; 0 where it cannot be read."""
    try:
        lines = Path(meminfo).read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) // 1024 for x in lines if x.startswith("MemAvailable:")), 0)


def workspace_mb(wanted: int, free: int) -> int:
    """Return the workspace to allow: what was asked for, a quarter of the free memory at most."""
    return wanted if not free else max(min(wanted, free // 4), 64)


def build(
    folder: Path, entry: dict[str, Any], *, out: Path, workspace: int, timing_cache: Path | None = None,
    say: Callable[[str], object] = str,
) -> dict[str, Any]:  # fmt: skip
    """Build one entry of build.json into `out`; return what TensorRT said of it.

    Args:
        folder: Of the ONNX files.
        entry: One of `builds` in build.json.
        out: The engine; written aside and renamed.
        workspace: In MiB.
        timing_cache: Shared between models; a refused one is dropped and written anew.
        say: Called with each phase.

    Raises:
        BuildError: Parser or builder refused, memory ran out, or there is no TensorRT.
    """
    trt = _tensorrt()
    logger, complaints = logger_of(trt)
    say("start")
    register_plugins(trt, logger)
    builder = _builder(trt, logger, complaints)
    network = builder.create_network(_network_flags(trt, entry))
    parser = trt.OnnxParser(network, logger)
    if entry.get("dla_core") is not None and entry.get("strongly_typed"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    say("parse")
    if not parser.parse_from_file(str(folder / entry["model"])):
        errors = [(True, str(parser.get_error(k))) for k in range(parser.num_errors)] or complaints
        raise BuildError(REFUSED, f"the parser refused {entry['model']}: {first_of(errors)}")
    config = builder.create_builder_config()
    kept = _configure(trt, config, network, entry, folder, workspace)
    cache = _use_timing_cache(config, timing_cache)
    # Held until after the builder is gone, as TensorRT asks.
    monitor = _monitor(trt, say) if hasattr(trt, "IProgressMonitor") else None
    if monitor is not None:
        config.progress_monitor = monitor
    say("build")
    begun = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    del kept
    if plan is None:
        memory = any(OUT_OF_MEMORY.search(words) for wrong, words in complaints if wrong)
        raise BuildError(
            NO_MEMORY if memory else REFUSED, f"the builder gave no engine: {first_of(complaints)}"
        )
    data = bytes(plan)
    say("write")
    _write(out, data)
    if timing_cache is not None:
        cache = _keep_timings(config, timing_cache, cache)
    return {
        "tensorrt": str(trt.__version__), "seconds": round(time.perf_counter() - begun, 1), "bytes": len(data),
        "timing_cache": cache, "workspace_mb": workspace, "precision": entry["precision"], "model": entry["model"],
        "warnings": [words for _, words in complaints[-20:]],
    }  # fmt: skip


def tensorrt_version() -> str:
    """Return the version of the board's TensorRT.

    Raises:
        BuildError: This Python has none.
    """
    return str(_tensorrt().__version__)


def _tensorrt() -> Any:
    try:
        import tensorrt  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise BuildError(NO_DRIVER, f"this Python has no tensorrt ({error}); it comes with JetPack") from None
    return tensorrt


def _builder(trt: Any, logger: Any, complaints: list[tuple[bool, str]]) -> Any:
    """Return a builder; where TensorRT cannot make one, its binding says only that a pointer is null."""
    try:
        return trt.Builder(logger)
    except TypeError as error:
        raise BuildError(
            NO_DRIVER, f"TensorRT {trt.__version__} does not start here: {first_of(complaints) or error}"
        ) from None


def _monitor(trt: Any, say: Callable[[str], object]) -> Any:
    """Return what TensorRT 10 and later tell their progress: the outermost phase with steps counts."""
    outer: dict[str, int] = {}

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Any, num_steps: int) -> None:
            if parent_phase is None and num_steps > 1:
                outer[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            outer.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in outer:
                say(f"build {step + 1} {outer[phase_name]}")
            return True

    return Monitor()


def register_plugins(trt: Any, logger: Any) -> None:
    """Make TensorRT's own plugins known: its parser turns some operators into them, and engines name them."""
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")


def logger_of(trt: Any) -> Any:
    """Return a logger and the list that it fills with warnings and errors: whether it is an error, and its words."""
    heard: list[tuple[bool, str]] = []
    errors = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (*errors, trt.ILogger.WARNING):
                heard.append((severity in errors, message))

    return Logger(), heard


def first_of(heard: list[tuple[bool, str]]) -> str:
    """Return the first error's first line, a warning's where there was none: TensorRT warns of much that is harmless."""
    words = [w.strip() for wrong in (True, False) for is_wrong, w in heard if is_wrong is wrong and w.strip()]
    return (words[0].splitlines()[0] if words else "it gave no reason")[:300]


def _network_flags(trt: Any, entry: dict[str, Any]) -> int:
    flags, found = trt.NetworkDefinitionCreationFlag, 0
    # Version 8 needs it, 10 ignores it, later ones may not have it.
    if hasattr(flags, "EXPLICIT_BATCH"):
        found |= 1 << int(flags.EXPLICIT_BATCH)
    if entry.get("strongly_typed"):
        # Version 11 knows no other networks; where its flag is gone the meaning stays.
        if not hasattr(flags, "STRONGLY_TYPED") and hasattr(trt.BuilderFlag, "FP16"):
            raise BuildError(REFUSED, f"TensorRT {trt.__version__} cannot build strongly typed networks")
        found |= 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
    return found


def _configure(
    trt: Any, config: Any, network: Any, entry: dict[str, Any], folder: Path, workspace: int
) -> Any:
    """Set what build.json asks for; return what must stay alive until the build ends."""
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
    # Without it the inspector names no precisions.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(config, "builder_optimization_level"):
        config.builder_optimization_level = int(entry.get("builder_level", 3))
    names = [*entry.get("flags", ())]
    names += ["SPARSE_WEIGHTS"] if entry.get("sparse") else []
    names += ["PREFER_PRECISION_CONSTRAINTS"] if entry.get("precision_constraints") == "prefer" else []
    names += ["GPU_FALLBACK"] if entry.get("gpu_fallback") else []
    for name in names:
        if not hasattr(trt.BuilderFlag, name):
            raise BuildError(
                REFUSED, f"TensorRT {trt.__version__} has no builder flag {name}: compile for its version"
            )
        config.set_flag(getattr(trt.BuilderFlag, name))
    if entry.get("dla_core") is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = int(entry["dla_core"])
        left = frozenset(entry.get("gpu_layers", ()))
        for layer in (network.get_layer(k) for k in range(network.num_layers)) if left else ():
            if layer.name in left:
                config.set_device_type(layer, trt.DeviceType.GPU)
    _layer_precisions(trt, network, entry.get("layer_precisions") or {})
    return _calibrate(trt, config, folder / entry["calibration"]) if entry.get("calibration") else None


def _layer_precisions(trt: Any, network: Any, wanted: dict[str, str]) -> None:
    kinds = {"fp16": "float16", "fp32": "float32", "int8": "int8"}
    for k in range(network.num_layers) if wanted else ():
        layer = network.get_layer(k)
        if layer.name in wanted:
            layer.precision = getattr(trt, kinds[wanted[layer.name]])


def _calibrate(trt: Any, config: Any, path: Path) -> Any:
    """Let scales come from a calibration cache; TensorRT asks for no samples, then."""
    data = path.read_bytes()

    class Cached(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, _names: Any) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return data

        def write_calibration_cache(self, _cache: Any) -> None:
            return None

    calibrator = Cached()
    config.int8_calibrator = calibrator
    return calibrator


def _use_timing_cache(config: Any, path: Path | None) -> str:
    """Give the builder what earlier builds timed; return "none", "new", "used" or "refused"."""
    if path is None:
        return "none"
    data = path.read_bytes() if path.is_file() else b""
    kept = config.create_timing_cache(data) if data else None
    # None where it cannot be read at all, False where it is another version's.
    if kept is not None and config.set_timing_cache(kept, False):  # noqa: FBT003 - their signature
        return "used"
    config.set_timing_cache(config.create_timing_cache(b""), False)  # noqa: FBT003
    return "refused" if data else "new"


def _keep_timings(config: Any, path: Path, state: str) -> str:
    """Write what this build timed; a full disk loses that alone, not the engine."""
    try:
        _write(path, bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        return f"{state}, not written: {error.strerror}"
    return state


def _write(path: Path, data: bytes) -> None:
    """Write aside, sync, rename: a reader sees the old file or the whole new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        if aside.exists():
            aside.unlink()


def chosen(folder: Path, name: str = "") -> dict[str, Any]:
    """Return one entry of the folder's build.json, the first where no name is given.

    Raises:
        BuildError: There is no build.json, or no such entry.
    """
    try:
        builds = json.loads((folder / "build.json").read_text())["builds"]
    except (OSError, ValueError, KeyError) as error:
        raise BuildError(BAD_INPUT, f"{folder / 'build.json'}: cannot be read ({error})") from None
    found = [b for b in builds if name in ("", b["model"])]
    if not found:
        raise BuildError(
            BAD_INPUT, f"{folder / 'build.json'}: builds no {name!r}, only {[b['model'] for b in builds]}"
        )
    entry: dict[str, Any] = found[0]
    return entry


def main(words: list[str] | None = None) -> int:
    """Build as the command line says; print one JSON line with the result."""
    import argparse  # edgekit imports this file wherever a bundle is opened

    parser = argparse.ArgumentParser(description="Build a TensorRT engine on the board that will run it.")
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).resolve().parent, help="with build.json"
    )
    parser.add_argument("--entry", default="", help="ONNX file of build.json; the first where empty")
    parser.add_argument("--out", type=Path, help="engine; engine.plan in the folder where empty")
    parser.add_argument("--workspace-mb", type=int, default=0, help="0: from build.json and the free memory")
    parser.add_argument("--timing-cache", type=Path, help="file shared between builds on this board")
    parser.add_argument("--no-probe", action="store_true", help="the caller has asked the driver already")
    given = parser.parse_args(words)
    try:
        facts = {} if given.no_probe else probe()
        entry = chosen(given.folder, given.entry)
        room = given.workspace_mb or workspace_mb(int(entry.get("workspace_mb", 1024)), free_memory_mb())
        done = build(
            given.folder, entry, out=given.out or given.folder / "engine.plan", workspace=room,
            timing_cache=given.timing_cache, say=lambda phase: print(f"phase {phase}", file=sys.stderr, flush=True),
        )  # fmt: skip
    except BuildError as error:
        print(json.dumps({"error": str(error), "code": error.code}))
        return error.code
    except OSError as error:
        code = NO_SPACE if error.errno in _NO_ROOM else BAD_INPUT
        print(json.dumps({"error": f"{error.filename or given.folder}: {error.strerror}", "code": code}))
        return code
    except MemoryError:
        print(json.dumps({"error": "this process ran out of memory", "code": NO_MEMORY}))
        return NO_MEMORY
    print(json.dumps({**facts, **done}))
    return BUILT


if __name__ == "__main__":
    sys.exit(main())
