"""Let one run at a time work on a folder, and say who has it and since when."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.core.errors import ResourceError
from edgekit.core.files import resource_errors


@contextmanager
def locked(
    folder: Path, *, hint: str = "Wait for it, or choose another output folder with -o."
) -> Iterator[None]:
    """Hold the lock of `folder` (a file beside it); the kernel frees it if the process dies.

    Raises:
        ResourceError: Another run holds it.
    """
    path = folder.with_name(f".{folder.name}.lock")
    with resource_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ResourceError(
                f"{folder}: locked by another run ({_owner(file.read())})",
                hint=hint,
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _owner(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {found['pid']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "just started"
