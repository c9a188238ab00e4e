"""Reach this machine as if it were a device: the agent runs here, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.core.errors import DeviceError
from edgekit.devices.processes import Done, run_process
from edgekit.devices.protocol import Kind, Ran


class Local:
    """This machine."""

    def run(self, words: Sequence[str], *, given: bytes = b"", timeout_s: float = 60.0) -> Ran:
        """Return what a command gives."""
        return _ran(_done(words, given, 0, timeout_s), timeout_s)

    def put(self, local: Path, words: Sequence[str], *, offset: int = 0) -> Ran:
        """Return what a command gives that reads a file from `offset` on."""
        return _ran(_done(words, local, offset, 60.0), 60.0)

    def facts(self) -> dict[str, str]:
        """Return that it is this machine."""
        return {"kind": "local", "address": ""}


def _done(words: Sequence[str], given: bytes | Path, offset: int, timeout_s: float) -> Done:
    try:
        return run_process(words, given=given, offset=offset, timeout_s=timeout_s)
    except FileNotFoundError:
        return Done(code=127, out=b"", err=f"{words[0]}: not found".encode())


def _ran(done: Done, timeout_s: float) -> Ran:
    if done.cut:
        raise DeviceError(
            f"local: no answer in {timeout_s:.0f} s", hint="The machine is overloaded: try again."
        )
    return Ran(code=done.code, out=done.out.decode(errors="replace"), err=done.err.decode(errors="replace"))


class LocalKind:
    """This machine."""

    def connect(self, address: str) -> Local:
        """Return this machine, whatever the address."""
        del address
        return Local()


PLUGIN: Kind = LocalKind()
