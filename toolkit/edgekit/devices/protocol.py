"""What every kind of connection to a device can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command on a device gave.

    Attributes:
        code: Its exit code, as the device itself said it.
        out: Stdout, at most a few megabytes.
        err: Stderr.
    """

    code: int
    out: str
    err: str


class Connection(Protocol):
    """A way to one device. Making one does not connect."""

    def run(self, words: Sequence[str], *, given: bytes = b"", timeout_s: float = 60.0) -> Ran:
        """Return what a command gives there.

        Raises:
            DeviceError: The device cannot be reached, was lost, or does not answer in time.
        """

    def put(self, local: Path, words: Sequence[str], *, offset: int = 0) -> Ran:
        """Return what a command gives that reads a file from `offset` on as its stdin.

        Raises:
            DeviceError: As `run`.
        """

    def facts(self) -> dict[str, str]:
        """Return how the device is reached, for people; does not connect."""


class Kind(Protocol):
    """A kind of connection: `local`, `ssh`."""

    def connect(self, address: str) -> Connection:
        """Return a connection to an address; nothing is sent yet."""
