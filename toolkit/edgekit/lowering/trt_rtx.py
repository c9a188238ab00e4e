"""Ask TensorRT for RTX whether its parser and builder take an ONNX file; its wheel does that on a CPU.

It is of TensorRT 11's family: typed strictly, newer operators than a Jetson's TensorRT. What it accepts it
accepts; that proves nothing about kernels, fusion, speed, plugins, NMS or the DLA.

    python -m edgekit.lowering.trt_rtx model.onnx     # one JSON line; used as a child process
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.lazy import have, need

_LIMIT_S = 300
DOES_NOT_PROVE = "kernels, fusion, speed, plugins, NMS, and what an older TensorRT reads"
# The parser takes it and the builder has no kernel, though TensorRT on a Jetson has: nothing to conclude.
_NOT_CHECKABLE = ("has no runners that implement it", "Plugin not found")


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What TensorRT for RTX said of one file.

    Attributes:
        state: "accepted", "rejected", or "not checked".
        version: Of TensorRT for RTX.
        words: Its first complaint, or why it was not asked.
        engine_mb: Size of the engine it built, in 1e6 bytes; thrown away.
    """

    state: str
    version: str = ""
    words: str = ""
    engine_mb: float = 0.0


def asked(path: Path) -> Accepted:
    """Return what parser and builder say of a file, in a process of its own: a crash is an answer, too."""
    if not have("tensorrt_rtx"):
        return Accepted(state="not checked", words="the extra edgekit[tensorrt-rtx] is not installed")
    words = [sys.executable, "-m", "edgekit.lowering.trt_rtx", str(path)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return Accepted(state="not checked", words=f"no answer within {_LIMIT_S} s")
    lines = [x for x in done.stdout.splitlines() if x.startswith("{")]
    if done.returncode or not lines:
        return Accepted(
            state="not checked", words=f"its process ended with {done.returncode}: it crashed on this file"
        )
    return Accepted(**json.loads(lines[-1]))


def _build(path: Path) -> Accepted:
    trt = need("tensorrt_rtx", extra="tensorrt-rtx", why="check a file with TensorRT for RTX")
    complaints: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR}:
                complaints.append(message)

    logger, version = Logger(), str(trt.__version__)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        said = [parser.get_error(k).desc() for k in range(parser.num_errors)] or complaints
        return _refused(version, said)
    engine = builder.build_serialized_network(network, builder.create_builder_config())
    if engine is None:
        return _refused(version, complaints)
    return Accepted(state="accepted", version=version, engine_mb=round(engine.nbytes / 1e6, 2))


def _refused(version: str, said: list[str]) -> Accepted:
    words = next((s.strip().splitlines()[0] for s in said if s.strip()), "no reason given")[:300]
    if any(n in s for n in _NOT_CHECKABLE for s in said):
        return Accepted(state="not checked", version=version, words=words)
    return Accepted(state="rejected", version=version, words=words)


if __name__ == "__main__":
    print(json.dumps(vars(_build(Path(sys.argv[1])))))
