"""Read the kernel's small text files: what cannot be read is unknown, with the reason, never 0."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Unknown:
    """Something that could not be read, and why."""

    why: str


def text_of(path: Path) -> str | Unknown:
    """Return what a file of /proc or /sys holds, without NULs and blanks around it.

    The file is opened without blocking: a gated thermal zone answers EAGAIN instead of holding the reader up.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = b""
            while block := os.read(number, 65536):
                found += block
        finally:
            os.close(number)
    except OSError as error:
        return Unknown(error.strerror or type(error).__name__)
    return found.decode(errors="replace").strip("\0\n ")


def number_of(path: Path) -> int | Unknown:
    """Return the whole number a file holds."""
    found = text_of(path)
    if isinstance(found, Unknown):
        return found
    try:
        return int(found)
    except ValueError:
        return Unknown(f"{found[:40]!r} is no number")


def plain_text(path: Path) -> str:
    """Return the text of a file, empty where it cannot be read: for facts that a passport leaves out."""
    found = text_of(path)
    return "" if isinstance(found, Unknown) else found
