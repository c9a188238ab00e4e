"""Write files and folders so that a reader finds the old one, the new one, never a half."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.core.errors import EdgekitError, ResourceError


@contextmanager
def resource_errors(where: Path) -> Iterator[None]:
    """Turn a full disk or a refused permission under `where` into a planned error.

    Raises:
        ResourceError: The disk is full or `where` may not be written.
    """
    try:
        yield
    except OSError as error:
        planned = resource_error(error, where)
        if planned is None:
            raise
        raise planned from error


def resource_error(error: OSError, where: Path) -> EdgekitError | None:
    """Return the planned error for a full disk or a refused permission, None for anything else."""
    path = error.filename or where
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ResourceError(
            f"{path}: no space left on the disk", hint="Free space there or set --work-dir to another disk."
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return ResourceError(
            f"{path}: may not be written ({error.strerror})",
            hint="Give write permission, or choose another folder (-o, --work-dir, EDGEKIT_CACHE).",
        )
    return None


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` aside, flush it to the disk, then rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


def json_text(value: Any) -> str:
    """Return `value` as JSON with sorted keys, the same bytes for the same value."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as `json_text` gives it."""
    write_text(path, json_text(value))


@contextmanager
def folder_aside(final: Path) -> Iterator[Path]:
    """Give an empty folder beside `final`, renamed to `final` if the block ends well, else removed.

    What stood at `final` is replaced whole; if the block fails it stays as it was.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    aside.mkdir()
    try:
        yield aside
        sync_tree(aside)
        swap_in(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def swap_in(aside: Path, final: Path) -> None:
    """Rename folder `aside` to `final`; an old `final` is moved off first and removed last."""
    old = final.with_name(f".{final.name}.old.{uuid.uuid4().hex[:8]}")
    had_one = final.exists()
    if had_one:
        final.rename(old)
    try:
        aside.rename(final)
    except BaseException:
        if had_one:
            old.rename(final)
        raise
    if had_one:
        shutil.rmtree(old, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file at another path without a copy, or with one where the disk has no links or is another."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sync_tree(root: Path) -> None:
    """Flush every file under `root` to the disk."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
