"""Read what drivers of neural accelerators say: Rockchip's NPU and Hailo."""

from __future__ import annotations

import re

from edgekit.machine.readings import Unknown


def rknpu_load(text: str) -> tuple[int, ...] | Unknown:
    """Return the load of each core in percent, from /sys/kernel/debug/rknpu/load."""
    if found := re.findall(r"Core\d+:\s*(\d+)%", text):
        return tuple(int(v) for v in found)
    single = re.search(r"NPU load:\s*(\d+)%", text)
    return (int(single[1]),) if single else Unknown("no load in the driver's text")


def rknpu_version(text: str) -> str | Unknown:
    """Return the driver's version, from debugfs or the kernel's log."""
    found = re.search(r"(?:RKNPU driver: v|Initialized rknpu )(\d+\.\d+\.\d+)", text)
    return found[1] if found else Unknown("no version in the driver's text")


def hailo(text: str) -> str | Unknown:
    """Return the architecture, such as "HAILO8L"; the board's name does not tell an 8 from an 8L."""
    found = re.search(r"Device Architecture:\s*(\S+)", text)
    return found[1] if found else Unknown("hailortcli names no architecture")
