"""A network link in user space between this machine and a namespace: delay, loss, rate and cut at will.

    python scripts/lab_link.py NAME0 ADDRESS0 NAMESPACE NAME1 ADDRESS1 CONTROL

Two TUN devices, one on each side; packets wait in a queue between them. CONTROL is a JSON file that may change at
any time: delay_s, jitter_s, rate_bit_s (0 for none), loss (share), up (0 cuts without a word). Kernels without
netem can do this, too. Loss and jitter are seeded.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

_TUNSETIFF, _TUN_WITHOUT_INFO = 0x400454CA, 0x1001  # linux/if_tun.h
_QUEUE, _BURST, _LOOK_S = 1000, 64, 0.05


@dataclass
class Control:
    """What the control file says."""

    path: Path
    delay_s: float = 0.0
    jitter_s: float = 0.0
    rate_bit_s: float = 0.0
    loss: float = 0.0
    up: int = 1
    seen_ns: int = 0
    looked: float = 0.0

    def look(self, now: float) -> None:
        """Read the file again where it has changed."""
        if now < self.looked + _LOOK_S:
            return
        self.looked = now
        try:
            changed = self.path.stat().st_mtime_ns
            if changed != self.seen_ns:
                for key, value in json.loads(self.path.read_text()).items():
                    setattr(self, key, value)
                self.seen_ns = changed
        except (OSError, ValueError):
            return


@dataclass
class Link:
    """Both ends and the packets between them."""

    ends: tuple[int, int]
    control: Control
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    waiting: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    queued: dict[int, int] = field(default_factory=dict)
    busy_until: dict[int, float] = field(default_factory=dict)
    number: int = 0

    def take(self, source: int) -> None:
        """Read what has come at one end and queue it for the other."""
        target = self.ends[1] if source == self.ends[0] else self.ends[0]
        for _ in range(_BURST):
            try:
                packet = os.read(source, 65536)
            except BlockingIOError:
                return
            lost = self.control.loss and self.rng.random() < self.control.loss
            if self.control.up and not lost and self.queued.get(target, 0) < _QUEUE:
                self._queue(target, packet)

    def _queue(self, target: int, packet: bytes) -> None:
        now = time.monotonic()
        due = now
        if self.control.rate_bit_s:
            due = max(self.busy_until.get(target, 0.0), now) + len(packet) * 8 / self.control.rate_bit_s
            self.busy_until[target] = due
        due += self.control.delay_s + self.rng.uniform(-1, 1) * self.control.jitter_s
        self.number += 1
        self.queued[target] = self.queued.get(target, 0) + 1
        heapq.heappush(self.waiting, (due, self.number, target, packet))

    def give(self) -> float:
        """Write what is due; return the seconds until the next look."""
        now = time.monotonic()
        self.control.look(now)
        while self.waiting and self.waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(self.waiting)
            self.queued[target] -= 1
            if self.control.up:
                try:
                    os.write(target, packet)
                except OSError:
                    continue
        return min(self.waiting[0][0] - now if self.waiting else _LOOK_S, _LOOK_S)


def tun(name: str, address: str) -> int:
    """Return a new TUN device with an address, up."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN_WITHOUT_INFO))
    subprocess.run(["ip", "address", "add", address, "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    return device


def enter(namespace: int) -> None:
    """Move this process into a network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0):
        raise OSError(ctypes.get_errno(), "setns")


def main() -> None:
    """Join both sides until killed."""
    name0, address0, namespace, name1, address1, control = sys.argv[1:7]
    first = tun(name0, address0)
    own, other = (os.open(p, os.O_RDONLY) for p in ("/proc/self/ns/net", f"/run/netns/{namespace}"))
    enter(other)
    second = tun(name1, address1)
    enter(own)
    link = Link((first, second), Control(Path(control)))
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select(link.ends, (), (), max(link.give(), 0))
        for end in ready:
            link.take(end)


if __name__ == "__main__":
    main()
