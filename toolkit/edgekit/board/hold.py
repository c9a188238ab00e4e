"""Hold a board: one measurement at a time, whoever started it; the kernel frees it if the holder dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.core.errors import ResourceError

# One for all users and folders of a board; it holds no secret and grants nothing.
LOCK = "/tmp/edgekit-board.lock"  # noqa: S108 - shared on purpose
_LOOKS = 5


@contextmanager
def held(path: Path, *, who: str, order: str) -> Iterator[None]:
    """Hold the board's lock, shared by all its users.

    A lock whose holder is gone (killed, or the board restarted) is free: the kernel forgets it. Ages are
    taken from the time since boot, since a board's wall clock may jump.

    Raises:
        ResourceError: Someone else holds it.
    """
    if why := unusable(path):
        raise ResourceError(
            f"{path}: cannot be used as the board's lock ({why})",
            hint="Set `lock` of the device to another file.",
        )
    descriptor = _opened(path)
    try:
        try:
            _locked(descriptor)
        except BlockingIOError:
            raise ResourceError(
                f"the board is taken by {holder_words(holder(path))}",
                hint="Wait for it (--wait), or free it with `edgekit devices unlock`.",
            ) from None
        os.ftruncate(descriptor, 0)
        said = {"who": who, "order": order, "pid": os.getpid(), "boot": boot(), "at_s": uptime_s()}
        os.pwrite(descriptor, json.dumps(said).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder(path: Path) -> dict[str, Any] | None:
    """Return who holds the board, None where nobody does: who, order, pid, age_s."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _said(os.pread(descriptor, 4096, 0))
    finally:
        os.close(descriptor)
    return None


def unusable(path: Path) -> str:
    """Return why a lock can never be held here, empty where it can: waiting for it would not end."""
    try:
        os.close(_opened(path))
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def holder_words(found: dict[str, Any] | None) -> str:
    """Return the holder in words."""
    if not found or "who" not in found:
        return "someone who has just begun"
    age = found.get("age_s")
    return f"{found['who']}, for {_age(age)}" if age is not None else str(found["who"])


def _said(raw: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(raw)
        found["age_s"] = uptime_s() - found["at_s"] if found["boot"] == boot() else None
    except (ValueError, KeyError, TypeError):
        return {}
    return found


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _opened(path: Path) -> int:
    """Open the lock for all users: O_CREAT alone is refused for others' files in a sticky /tmp."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        os.fchmod(descriptor, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no file", str(path))
    return descriptor


def _locked(descriptor: int) -> None:
    """Lock, past somebody's short look at who holds it."""
    for _ in range(_LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def uptime_s() -> float:
    """Return the seconds since boot, which no change of the clock moves."""
    return float(Path("/proc/uptime").read_text().split()[0])


def boot() -> str:
    """Return the id of this boot."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""
