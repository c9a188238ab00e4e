"""Run a local process with a limit on its time and on what it may answer."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# A device that answers without end must not fill this machine.
_MOST = 64 << 20
_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a process ended; `cut` is "late" after its time, "flood" when it said too much, else empty."""

    code: int
    out: bytes
    err: bytes
    cut: str = ""


def run_process(
    words: Sequence[str], *, given: bytes | Path = b"", offset: int = 0, timeout_s: float = 60.0
) -> Done:
    """Return what a process gave.

    Args:
        words: Program and arguments.
        given: Its stdin: bytes, or a file that is sent from `offset` on.
        offset: Of the file.
        timeout_s: It is killed after this long; while it still reads a file, after this long without reading.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, _source(given, offset) as source:
        process = subprocess.Popen(list(words), stdin=source, stdout=out, stderr=err)
        try:
            cut = _watched(process, source, (out, err), timeout_s)
        finally:
            process.kill()
            process.wait()
        return Done(code=process.returncode, out=_said(out), err=_said(err), cut=cut)


@contextmanager
def _source(given: bytes | Path, offset: int) -> Iterator[IO[bytes]]:
    """Give an open file whose position is where the process reads on."""
    with given.open("rb", 0) if isinstance(given, Path) else tempfile.TemporaryFile(buffering=0) as source:
        if isinstance(given, bytes):
            source.write(given)
        source.seek(offset)
        yield source


def _watched(
    process: subprocess.Popen[bytes], source: IO[bytes], said: Sequence[IO[bytes]], timeout_s: float
) -> str:
    """Wait for the process; return why it has to be killed, empty when it ended by itself."""
    ends, read = time.monotonic() + timeout_s, source.tell()
    while True:
        try:
            process.wait(timeout=min(_LOOK_S, max(ends - time.monotonic(), 0.01)))
        except subprocess.TimeoutExpired:
            pass
        else:
            return ""
        if sum(os.fstat(f.fileno()).st_size for f in said) > _MOST:
            return "flood"
        if source.tell() != read:
            ends, read = time.monotonic() + timeout_s, source.tell()
        if time.monotonic() >= ends:
            return "late"


def _said(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_MOST)
