"""A lab of ARM boards on this machine: aarch64 userlands under emulation, each behind a real sshd and its own link.

    python scripts/lab.py why-not                       why it cannot run here; nothing and exit 0 where it can
    python scripts/lab.py build                         fetch and make what boards are made of, once
    python scripts/lab.py up pi5 --index 1              start a board; prints its ssh configuration
    python scripts/lab.py link pi5 '{"delay_s": 0.05, "loss": 0.02}'
    python scripts/lab.py down pi5

Needs root, binfmt_misc and /dev/net/tun, and the Debian packages of `PACKAGES`. ARM code runs in qemu-user 10:
version 7, which Debian 12 has, crashes when onnxruntime is imported. The root is unpacked, never run, while it is
built. A board is an overlay of two squashfs files with a tmpfs on top, so each starts fresh in well under a second.

Emulated latencies say nothing about a board, and edgekit marks them so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LAB = Path(os.environ.get("EDGEKIT_LAB", Path.home() / ".cache" / "edgekit-lab"))
PACKAGES = ("mmdebstrap", "squashfs-tools", "openssh-server", "openssh-client", "iproute2", "procps")
SUITE, PYTHON = "bookworm", "3.11"
# What the agent and an interactive login need; python's library alone is most of it.
INSIDE = (
    "base-files", "base-passwd", "libc6", "libc-bin", "libstdc++6", "libgomp1", f"python{PYTHON}",
    f"libpython{PYTHON}-stdlib", "bash", "dash", "coreutils", "procps", "grep", "sed", "findutils", "hostname",
    "util-linux", "login", "passwd", "ncurses-base",
)  # fmt: skip
WHEELS = ("numpy", "onnxruntime", "flatbuffers", "protobuf", "packaging", "openvino")
MIDR = {"cortex-a53": "410fd034", "cortex-a72": "410fd083", "cortex-a76": "414fd0b1"}
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ENTRY = "edgekit-aarch64"


def why_not() -> str:
    """Return why the lab cannot run here, empty where it can."""
    if os.getuid():
        return "needs root"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    tools = {
        "mmdebstrap": "mmdebstrap",
        "mksquashfs": "squashfs-tools",
        "sshd": "openssh-server",
        "ssh": "openssh-client",
        "ip": "iproute2",
    }
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [p for tool, p in tools.items() if not shutil.which(tool, path=path)]
    if missing:
        return f"needs {', '.join(missing)}"
    if not (_BINFMT / "register").exists():
        done = run("mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT), check=False)
        if done.returncode:
            return f"needs binfmt_misc: {done.stderr.strip()}"
    return ""


def run(*words: object, check: bool = True, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a program; a failure shows what it said."""
    done = subprocess.run([str(w) for w in words], capture_output=True, check=False, text=True, **more)  # type: ignore[call-overload]
    if check and done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done  # type: ignore[no-any-return]


def build() -> None:
    """Make the emulator, the root and the wheels, each once."""
    LAB.mkdir(parents=True, exist_ok=True)
    for name, make in (("qemu-aarch64", _qemu), ("base.sqfs", _root), ("wheels.sqfs", _wheels)):
        if not (LAB / name).is_file():
            with tempfile.TemporaryDirectory(dir=LAB) as folder:
                make(Path(folder)).replace(LAB / name)


def _mirror() -> str:
    """Return the Debian mirror that this machine uses."""
    rows = run("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)").stdout.splitlines()
    found = sorted({r.split()[1] for r in rows if r.split()[0] == SUITE})
    return found[0] if found else sys.exit(f"no mirror of {SUITE} in apt's sources")


def _qemu(folder: Path) -> Path:
    """Fetch qemu-user 10 from the backports, checked by apt, and take the one file that is needed."""
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    sources = folder / "backports.list"
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources.write_text(f"deb [signed-by={keys}] {_mirror()} {SUITE}-backports main\n")
    options = {
        "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "-", "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache", "APT::Sandbox::User": "root",
    }  # fmt: skip
    words = ["-qq", *(w for k, v in options.items() for w in ("-o", f"{k}={v}"))]
    run("apt-get", *words, "update")
    run("apt-get", *words, "download", "qemu-user", cwd=folder)
    package = next(folder.glob("qemu-user_*.deb"))
    run("sh", "-c", f"dpkg-deb --fsys-tarfile {package} | tar xf - -C {folder} ./usr/bin/qemu-aarch64")
    return folder / "usr/bin/qemu-aarch64"


def _root(folder: Path) -> Path:
    """Unpack an arm64 root without running anything of it."""
    root = folder / "root"
    run(
        "mmdebstrap", "--quiet", "--mode=root", "--arch=arm64", "--variant=extract",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--include={','.join(INSIDE)}", SUITE, root, _mirror(),
    )  # fmt: skip
    for name in ("doc", "man", "locale", "info", "perl"):
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    for name, base in (("passwd", "passwd.master"), ("group", "group.master")):
        shutil.copy(root / "usr/share/base-passwd" / base, root / "etc" / name)
    with (root / "etc/passwd").open("a") as file:
        file.write(
            "sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\nedge:x:1000:1000:edge:/home/edge:/bin/bash\n"
        )
    with (root / "etc/group").open("a") as file:
        file.write("edge:x:1000:\n")
    home = root / "home/edge"
    home.mkdir(parents=True)
    os.chown(home, 1000, 1000)
    (root / "usr/bin/python3").symlink_to(f"python{PYTHON}")
    return _squashed(root, folder / "base.sqfs")


def _wheels(folder: Path) -> Path:
    """Put the public aarch64 wheels in place, at the versions this machine has."""
    pins = dict(
        re.findall(
            r"^([\w.-]+)==([\w.]+)(?:; python_version >= .*)?$",
            (HERE.parent / "constraints.txt").read_text(),
            re.MULTILINE,
        )
    )
    tags = [f"manylinux_2_{k}_aarch64" for k in range(17, 37)] + ["manylinux2014_aarch64"]
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--implementation", "cp",
        "--python-version", PYTHON, *(w for t in tags for w in ("--platform", t)),
        *(w for a in (f"cp{PYTHON.replace('.', '')}", "abi3", "none") for w in ("--abi", a)),
        "--target", folder / "tree/opt/site", *(f"{w}=={pins[w]}" if w in pins else w for w in WHEELS),
    )  # fmt: skip
    return _squashed(folder / "tree", folder / "wheels.sqfs")


def _squashed(tree: Path, out: Path) -> Path:
    run("mksquashfs", tree, out, "-comp", "zstd", "-Xcompression-level", "3", "-no-progress", "-quiet")
    return out


def register() -> None:
    """Let the kernel run aarch64 programs through the emulator, also in other roots (flag F)."""
    entry = _BINFMT / _ENTRY
    if entry.exists() and str(LAB) in entry.read_text():
        return
    if entry.exists():
        entry.write_text("-1")
    magic = "7f454c460201010000000000000000000200b700"
    mask = "ffffffffffffff00fffffffffffffffffeffffff"
    raw = [
        ":",
        _ENTRY,
        ":M::",
        *(f"\\x{magic[k : k + 2]}" for k in range(0, 40, 2)),
        ":",
        *(f"\\x{mask[k : k + 2]}" for k in range(0, 40, 2)),
    ]
    (_BINFMT / "register").write_text("".join(raw) + f":{LAB}/qemu-aarch64:F\n")


class Board:
    """One board: its folder, namespace, link and server."""

    def __init__(self, name: str, index: int = 0) -> None:
        self.name, self.folder = name, LAB / "run" / name
        kept = self.folder / "index"
        self.index = index or (int(kept.read_text()) if kept.is_file() else 1)
        self.keys = Path("/run/edgekit-lab") / name
        self.root, self.space = self.folder / "root", f"ek-{name}"
        self.group = (
            Path("/sys/fs/cgroup/memory")
            if Path("/sys/fs/cgroup/memory").is_dir()
            else Path("/sys/fs/cgroup")
        )
        self.group /= self.space

    def up(self, *, cpu: str, memory: str, disk: str, model: str) -> Path:
        """Start the board; return its ssh configuration."""
        self.down()
        register()
        self._mount(disk)
        self._pretend(cpu, model)
        (self.folder / "index").write_text(str(self.index))
        self._connect()
        self._keys(cpu)
        self._limit(memory)
        self.start()
        return self.folder / "ssh_config"

    def _mount(self, disk: str) -> None:
        for name in ("base", "wheels", "rw", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("base", "wheels"):
            run("mount", "-t", "squashfs", "-o", "ro,loop", LAB / f"{name}.sqfs", self.folder / name)
        run("mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", self.folder / "rw")
        for name in ("upper", "work"):
            (self.folder / "rw" / name).mkdir()
        layers = f"lowerdir={self.folder}/wheels:{self.folder}/base,upperdir={self.folder}/rw/upper,workdir={self.folder}/rw/work"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        self.root.chmod(0o755)
        run("mount", "-t", "proc", "proc", self.root / "proc")
        for name in ("null", "zero", "full", "random", "urandom", "tty"):
            (self.root / "dev" / name).touch()
            run("mount", "--bind", f"/dev/{name}", self.root / "dev" / name)
        (self.root / "tmp").chmod(0o1777)

    def _pretend(self, cpu: str, model: str) -> None:
        """Write the files under /sys that tell what board this is: as many cores as this machine really has."""
        cores = self.root / "sys/devices/system/cpu"
        count = os.cpu_count() or 1
        for k in range(count):
            one = cores / f"cpu{k}"
            for name in ("topology", "cpufreq", "regs/identification"):
                (one / name).mkdir(parents=True)
            (one / "regs/identification/midr_el1").write_text(
                f"0x00000000{MIDR.get(cpu, MIDR['cortex-a76'])}\n"
            )
            facts = {
                "core_cpus": f"{1 << k:x}", "thread_siblings": f"{1 << k:x}", "core_cpus_list": k, "thread_siblings_list": k,
                "package_cpus": f"{(1 << count) - 1:x}", "core_siblings": f"{(1 << count) - 1:x}",
                "package_cpus_list": f"0-{count - 1}", "core_siblings_list": f"0-{count - 1}", "core_id": k,
                "physical_package_id": 0, "cluster_id": 0,
            }  # fmt: skip
            for name, value in facts.items():
                (one / "topology" / name).write_text(f"{value}\n")
            for name, value in (
                ("scaling_governor", "ondemand"),
                ("scaling_cur_freq", 1500000),
                ("cpuinfo_max_freq", 2400000),
            ):
                (one / "cpufreq" / name).write_text(f"{value}\n")
        for name in ("possible", "present", "online"):
            (cores / name).write_text(f"0-{count - 1}\n")
        tree, zone = self.root / "sys/firmware/devicetree/base", self.root / "sys/class/thermal/thermal_zone0"
        tree.mkdir(parents=True)
        zone.mkdir(parents=True)
        (tree / "model").write_bytes(model.encode() + b"\0")
        (zone / "type").write_text("cpu-thermal\n")
        (zone / "temp").write_text("48800\n")

    def _connect(self) -> None:
        """Join the board's own network to this machine by the link in user space."""
        run("ip", "netns", "add", self.space)
        run("ip", "-n", self.space, "link", "set", "lo", "up")
        self.link({})
        log = self.folder / "link.log"
        here, there = f"10.77.{self.index}.1/30", f"10.77.{self.index}.2/30"
        words = [
            sys.executable,
            HERE / "lab_link.py",
            f"ekh{self.index}",
            here,
            self.space,
            "eth0",
            there,
            self.folder / "link.json",
        ]
        (self.folder / "link.pid").write_text(str(_apart([str(w) for w in words], log)))
        _until(lambda: "ready" in (self.folder / "link.log").read_text(), self.folder / "link.log")

    def link(self, control: dict[str, float]) -> None:
        """Set delay_s, jitter_s, rate_bit_s, loss and up of the link; what is not named is perfect."""
        perfect = {"delay_s": 0, "jitter_s": 0, "rate_bit_s": 0, "loss": 0, "up": 1}
        aside = self.folder / "link.part"
        aside.write_text(json.dumps({**perfect, **control}))
        aside.replace(self.folder / "link.json")
        time.sleep(0.1)

    def _keys(self, cpu: str) -> None:
        """Make keys and both sides' configuration."""
        # sshd reads it as the board's user, who may not look into this user's home.
        self.keys.parent.mkdir(parents=True, exist_ok=True)
        for key in ("host", "id"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key)
        self.keys.write_text((self.folder / "id.pub").read_text())
        environment = f"QEMU_CPU={cpu} QEMU_UNAME=6.6.31+rpt-rpi-2712 PATH=/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/site LANG=C.UTF-8"
        (self.folder / "sshd_config").write_text(
            f"Port 22\nListenAddress 0.0.0.0\nHostKey {self.folder}/host\nAuthorizedKeysFile {self.keys}\n"
            f"PidFile {self.folder}/sshd.pid\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            f"StrictModes no\nPermitRootLogin no\nSetEnv {environment}\nChrootDirectory /mnt\nSubsystem sftp internal-sftp\n"
        )
        address = f"10.77.{self.index}.2"
        key = " ".join((self.folder / "host.pub").read_text().split()[:2])
        (self.folder / "known").write_text(f"{address} {key}\n")
        (self.folder / "ssh_config").write_text(
            f"Host {self.name}\n  HostName {address}\n  User edge\n  IdentityFile {self.folder}/id\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.folder}/known\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
        )

    def _limit(self, memory: str) -> None:
        """Give the board its memory, by whichever cgroup there is."""
        try:
            self.group.mkdir(exist_ok=True)
            one = "memory.limit_in_bytes" if (self.group / "memory.limit_in_bytes").exists() else "memory.max"
            (self.group / one).write_text(memory)
        except OSError as error:
            print(f"no memory limit: {error}", file=sys.stderr)

    def start(self) -> None:
        """Start the board's sshd in its own namespaces, chrooted into the ARM root."""
        Path("/run/sshd").mkdir(exist_ok=True)
        (self.folder / "sshd.pid").unlink(missing_ok=True)
        inside = (
            f"mount --rbind {self.root} /mnt; mount --bind {self.root}/etc/passwd /etc/passwd; "
            f"mount --bind {self.root}/etc/group /etc/group; hostname {self.name}; "
            f"exec /usr/sbin/sshd -D -f {self.folder}/sshd_config -E {self.folder}/sshd.log"
        )
        joined = f"echo $$ > {self.group}/cgroup.procs; " if self.group.is_dir() else ""
        outer = f"{joined}exec ip netns exec {self.space} unshare -m -u -i -- sh -c '{inside}'"
        _apart(["sh", "-c", outer], self.folder / "start.log")
        _until((self.folder / "sshd.pid").is_file, self.folder / "sshd.log")

    def reboot(self) -> None:
        """End everything that runs on the board, as a loss of power does, and start it again."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """End everything that runs on the board."""
        for _ in range(50):
            found = run("ip", "netns", "pids", self.space, check=False).stdout.split()
            for pid in found:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if not found:
                return
            time.sleep(0.05)

    def down(self) -> None:
        """Take the board away without a trace."""
        self.kill()
        pid = self.folder / "link.pid"
        if pid.is_file():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)
        run("ip", "netns", "delete", self.space, check=False)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            run("umount", "-l", mount, check=False)
        if self.group.is_dir():
            try:
                self.group.rmdir()
            except OSError:
                time.sleep(0.2)
                run("rmdir", self.group, check=False)
        for process in _STARTED:
            process.poll()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.keys.unlink(missing_ok=True)


_STARTED: list[subprocess.Popen[bytes]] = []


def _apart(words: list[str], log: Path) -> int:
    """Start a program that outlives this one; return its process id."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    _STARTED.append(process)
    return process.pid


def _until(found: object, log: Path) -> None:
    ends = time.monotonic() + 15
    while not found():  # type: ignore[operator]
        if time.monotonic() > ends:
            sys.exit(f"the board did not start: {log.read_text() if log.is_file() else 'no log'}")
        time.sleep(0.02)


def main() -> int:
    """Do what is asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=["why-not", "build", "up", "link", "reboot", "down"])
    parser.add_argument("name", nargs="?", default="pi5")
    parser.add_argument("control", nargs="?", default="{}")
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--cpu", default="cortex-a76")
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--disk", default="512m")
    parser.add_argument("--model", default="Raspberry Pi 5 Model B Rev 1.0")
    args = parser.parse_args()
    if reason := why_not():
        print(reason)
        return 1
    board = Board(args.name, args.index)
    if args.do == "build":
        build()
    elif args.do == "up":
        build()
        print(board.up(cpu=args.cpu, memory=args.memory, disk=args.disk, model=args.model))
    elif args.do == "link":
        board.link(json.loads(args.control))
    elif args.do in {"reboot", "down"}:
        getattr(board, args.do)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
