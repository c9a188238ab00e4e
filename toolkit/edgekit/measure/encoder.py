"""Time how long a device takes to code one frame: by numpy, and by the C header where there is a compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor_table import table_of
from edgekit.core.errors import ContractError
from edgekit.core.plugins import pick
from edgekit.core.records import Coding
from edgekit.frames.raw import fitted_planes, planes_of

_RUNS, _LIMIT_S, _COMPILE_S = 200, 2.0, 60.0
# One frame as a camera's processor would code it: row after row, channel after channel.
_SOURCE = """#include "encoder.h"
void edgekit_encode_frame(const edgekit_value *values, size_t height, size_t width, uint8_t *out)
{
    for (unsigned c = 0; c < EDGEKIT_CHANNELS; c++)
        for (size_t y = 0; y < height; y++) {
            edgekit_encode_row(values, width, c, out);
            values += width;
            out += edgekit_row_bytes(width);
        }
}
"""


def encoder_times(coding: Coding, frames: Sequence[NDArray[Any]]) -> dict[str, Any]:
    """Return the median time of coding one frame on this machine, on one core.

    Args:
        coding: The codec and its settings.
        frames: A sensor's signals, taken in turn.

    Returns:
        `numpy_ms`, `c_ms` (None where no C compiler is installed), `c_mb_s` (of the sensor's values as they lie in
        memory), `runs`, and `compiler`.

    Raises:
        ContractError: The C encoder gives other bytes than the table.
    """
    table = table_of(coding.settings)
    size = (table.height, table.width)
    planes = [fitted_planes(planes_of(f, table.sensor), size, table.sensor.black)[0] for f in frames]
    codec = pick("codecs", coding.codec, what="codec")
    numpy_ms, runs = _median_ms([lambda p=p: codec.encode(p, coding.settings) for p in planes])  # type: ignore[misc]
    found: dict[str, Any] = {"numpy_ms": numpy_ms, "c_ms": None, "c_mb_s": None, "runs": runs, "compiler": ""}
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return found
    with tempfile.TemporaryDirectory() as folder:
        encode = compiled(codec.files(coding.settings)["device/encoder.h"], Path(folder), compiler)
        kind = c_type(signed=table.sensor.signed, bits=table.sensor.bits)
        given = [np.ascontiguousarray(p, kind) for p in planes]
        out = np.zeros(codec.shape(coding.settings), np.uint8)
        for one, plane in zip(given, planes, strict=True):
            encode(one, out)
            if not np.array_equal(out, codec.encode(plane, coding.settings)):
                raise ContractError(
                    "the C encoder gives other bytes than the table",
                    hint="Report it with the compiler's version.",
                )
        found["c_ms"], _ = _median_ms([lambda p=p: encode(p, out) for p in given])  # type: ignore[misc]
        found["c_mb_s"] = given[0].nbytes / 1e3 / found["c_ms"]
        found["compiler"] = f"{Path(compiler).name} -O2"
    return found


def c_type(*, signed: bool, bits: int) -> type[np.integer[Any]]:
    """Return the type in which the C header takes values."""
    if bits <= 8:
        return np.int8 if signed else np.uint8
    return np.int16 if signed else np.uint16


def compiled(
    header: bytes, folder: Path, compiler: str, *flags: str
) -> Callable[[NDArray[Any], NDArray[np.uint8]], None]:
    """Return a function that codes planes (C, H, W) into (1, C, H, bytes a row) by the C header.

    Raises:
        ContractError: The compiler refuses it.
    """
    (folder / "encoder.h").write_bytes(header)
    (folder / "frame.c").write_text(_SOURCE)
    words = [
        compiler,
        "-O2",
        "-std=c99",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        *flags,
        "frame.c",
        "-o",
        "frame.so",
    ]
    ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
    if ran.returncode:
        first = (ran.stderr.strip().splitlines() or ["no message"])[0]
        raise ContractError(
            f"the C encoder does not compile: {first}", hint="Report it with the compiler's version."
        )
    function = ctypes.CDLL(str(folder / "frame.so")).edgekit_encode_frame
    function.restype = None

    def encode(planes: NDArray[Any], out: NDArray[np.uint8]) -> None:
        height, width = planes.shape[1:]
        pointers = (ctypes.c_void_p(a.ctypes.data) for a in (planes, out))
        given, gives = pointers
        function(given, ctypes.c_size_t(height), ctypes.c_size_t(width), gives)

    return encode


def _median_ms(calls: Sequence[Callable[[], Any]]) -> tuple[float, int]:
    """Return the median of up to 200 runs, or of what fits in two seconds."""
    for call in calls:
        call()
    spent: list[float] = []
    end = time.perf_counter() + _LIMIT_S
    while len(spent) < _RUNS and (len(spent) < 5 or time.perf_counter() < end):
        begun = time.perf_counter_ns()
        calls[len(spent) % len(calls)]()
        spent.append((time.perf_counter_ns() - begun) / 1e6)
    return float(np.median(spent)), len(spent)
