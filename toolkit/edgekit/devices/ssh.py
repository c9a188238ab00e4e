"""Reach a device by OpenSSH's own client: its configuration, agent, jump hosts and known hosts count."""

from __future__ import annotations

import functools
import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgekit.core.digest import digest_bytes
from edgekit.core.errors import DeviceError, LinkError, MissingError
from edgekit.devices.processes import Done, run_process
from edgekit.devices.protocol import Kind, Ran

# A dead link is noticed within 10 s. Each is used only where the user's configuration says nothing.
_DEFAULTS = {"connecttimeout": ("none", "10"), "serveraliveinterval": ("0", "3")}
_MARK = "edgekit-exit"
# Pattern in what ssh says, what it means, what to do, and whether it may pass.
_REASONS = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed", "its host key is not the known one",
     "If the board was set up anew, check the new key there (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and "
     "remove the old one with ssh-keygen -R HOST; a new board: log in once by hand with ssh.", False),
    (r"Permission denied|Too many authentication failures", "it refuses the login",
     "Give ssh a key the board knows (ssh-copy-id); passwords are not asked for.", False),
    (r"Could not resolve", "its name is not known", "Check the address in the devices file or in ~/.ssh/config.", False),
    (r"Connection refused", "nothing listens there", "Start sshd on the board, or check the port.", True),
    (r"timed out|No route to host|Network is unreachable|Host is down", "it does not answer",
     "Check power and cable, and that `ssh` reaches it.", True),
    (r"Bad configuration option|terminating, \d+ bad|Bad owner or permissions", "ssh refuses its configuration",
     "Correct what ssh names.", False),
)  # fmt: skip


class Ssh:
    """One device; all commands share one connection, which closes itself a minute after the last."""

    def __init__(self, address: str) -> None:
        self.address = address

    def run(self, words: Sequence[str], *, given: bytes = b"", timeout_s: float = 60.0) -> Ran:
        """Return what a command gives there."""
        return self._ran(run_process(self._words(words), given=given, timeout_s=timeout_s), timeout_s)

    def put(self, local: Path, words: Sequence[str], *, offset: int = 0) -> Ran:
        """Return what a command gives that reads a file from `offset` on."""
        timeout_s = 60.0
        done = run_process(self._words(words), given=local, offset=offset, timeout_s=timeout_s)
        return self._ran(done, timeout_s)

    def facts(self) -> dict[str, str]:
        """Return the address."""
        return {"kind": "ssh", "address": self.address}

    def _words(self, words: Sequence[str]) -> list[str]:
        # A program that is killed by a signal there ends the session as a lost link does: exit 255 of ssh.
        # So a shell reports its exit code, and without that report the link was lost.
        inner = f"{shlex.join(words)}; printf '\\n{_MARK} %d\\n' $? >&2"
        return [*_ssh(self.address), self.address, f"sh -c {shlex.quote(inner)}"]

    def _ran(self, done: Done, timeout_s: float) -> Ran:
        err = done.err.decode(errors="replace")
        if done.cut == "late":
            raise LinkError(
                f"{self.address}: no answer in {timeout_s:.0f} s",
                hint="The board is overloaded or the link is dead: try again.",
            )
        if done.cut == "flood":
            raise DeviceError(
                f"{self.address}: answers without end", hint="Is a shell's start-up file printing there?"
            )
        found = re.search(rf"^{_MARK} (\d+)\s*$", err, re.MULTILINE)
        if not found:
            raise self._lost(err)
        return Ran(code=int(found[1]), out=done.out.decode(errors="replace"), err=err[: found.start()])

    def _lost(self, err: str) -> DeviceError:
        for pattern, why, hint, passes in _REASONS:
            if re.search(pattern, err):
                return (LinkError if passes else DeviceError)(f"{self.address}: {why}", hint=hint)
        last = err.strip().splitlines()[-1] if err.strip() else "the link was lost"
        return LinkError(f"{self.address}: {last}", hint="Try again: uploads go on, runs go on on the board.")


def _config() -> list[str]:
    own = os.environ.get("EDGEKIT_SSH_CONFIG")
    return ["-F", own] if own else []


@functools.lru_cache(maxsize=1024)
def _ssh(address: str) -> tuple[str, ...]:
    """Return the words before the command: what the user's configuration leaves open is set for a flaky link."""
    try:
        done = run_process(["ssh", *_config(), "-G", address], timeout_s=10)
    except FileNotFoundError:
        raise MissingError("ssh is not installed", hint="Install the OpenSSH client.") from None
    if done.code:
        last = done.err.decode(errors="replace").strip().splitlines()[-1:]
        raise DeviceError(f"{address}: ssh: {' '.join(last)}", hint="Correct ~/.ssh/config or the address.")
    said = dict(line.split(" ", 1) for line in done.out.decode().splitlines() if " " in line)
    words = ["ssh", *_config(), "-o", "BatchMode=yes", "-T"]
    for key, (unset, value) in _DEFAULTS.items():
        if said.get(key, unset) in {unset, "0"}:
            words += ["-o", f"{key}={value}"]
    if said.get("controlpath", "none") == "none":
        words += ["-o", "ControlMaster=auto", "-o", f"ControlPath={_sockets()}/%C", "-o", "ControlPersist=60"]
    return tuple(words)


@functools.cache
def _sockets() -> Path:
    """Return a private folder for control sockets; its path is short, since a socket's may have 108 bytes."""
    name = digest_bytes(" ".join(_config()).encode())[:8]
    folder = Path(tempfile.gettempdir()) / f"edgekit-ssh-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        return Path(tempfile.mkdtemp(prefix="ek-"))
    folder.chmod(0o700)
    return folder


class SshKind:
    """OpenSSH."""

    def connect(self, address: str) -> Ssh:
        """Return a connection to `user@host` or a name of ssh's configuration."""
        return Ssh(address)


PLUGIN: Kind = SshKind()
