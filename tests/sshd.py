"""A real sshd on loopback, with keys, known hosts and an ssh configuration of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from edgekit.measure.steady import PATIENCE

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
WHY_NOT = "" if SSHD and shutil.which("ssh") else "needs sshd and ssh (openssh-server, openssh-client)"
if WHY_NOT and os.environ.get("EDGEKIT_LAB_REQUIRED"):
    raise RuntimeError(f"boards over SSH must be tested here: {WHY_NOT}")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Sshd:
    """The server, its client configuration, and how to stop and start it."""

    def __init__(self, folder: Path, *, environment: str = "") -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(parents=True, exist_ok=True)
        for key in ("host", "other", "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        (folder / "authorized").write_text((folder / "id.pub").read_text())
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized\nPidFile {folder}/sshd.pid\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n"
            "MaxStartups 100:30:200\nMaxSessions 100\nSubsystem sftp internal-sftp\n"
            # sshd takes one SetEnv. A warm-up there is as short as here (tests/conftest.py).
            f"SetEnv {PATIENCE}=0.5 {environment}\n"
        )
        self.config = folder / "ssh_config"
        self.write_config()
        self.know("host")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def write_config(self, *, port: int = 0, more: str = "") -> None:
        """Write the client's configuration; `port` puts something between client and server."""
        self.config.write_text(
            f"Host board*\n  HostName 127.0.0.1\n  Port {port or self.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {self.folder}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {self.folder}/known\n"
            f"  HostKeyAlias board\n  StrictHostKeyChecking yes\n  GlobalKnownHostsFile none\n{more}"
        )

    def know(self, key: str) -> None:
        """Let the client know this key as the server's."""
        words = (self.folder / f"{key}.pub").read_text().split()[:2]
        (self.folder / "known").write_text(f"board {' '.join(words)}\n")

    def start(self) -> None:
        """Start the server and wait until it listens."""
        assert SSHD
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        log = self.folder / "sshd.log"
        self._process = subprocess.Popen(
            [SSHD, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(log)],
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for _ in range(200):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        """End the server with all its sessions, as a board that loses its power."""
        if self._process:
            children = subprocess.run(
                ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True
            ).stdout.split()
            for pid in (*map(int, children), self._process.pid):
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
            self._process.wait()
            self._process = None


def write_devices(config: Path, sshd: Sshd, names: dict[str, Path], *, more: str = "") -> None:
    """Write the user's devices file with boards that share the server, each with its own folder and lock."""
    config.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{name}: {{extends: local, ssh: {name}, tags: [lab], root: {root}, lock: {root}.lock, python: {os.sys.executable}{more}}}"
        for name, root in names.items()
    ]
    (config / "devices.yaml").write_text("\n".join(rows) + "\n")
