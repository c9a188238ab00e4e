"""Read what NVIDIA's tools and files say on a Jetson: release, power mode, tegrastats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.machine.readings import Unknown

# First L4T version of each JetPack, from NVIDIA's release archive and jetson_stats' table.
_JETPACKS = {
    "32.6.1": "4.6", "32.7.1": "4.6.1", "34.1.1": "5.0.1", "35.1.0": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1",
    "35.4.1": "5.1.2", "35.5.0": "5.1.3", "35.6.0": "5.1.4", "35.6.1": "5.1.5", "35.6.2": "5.1.6",
    "36.2.0": "6.0 DP", "36.3.0": "6.0", "36.4.0": "6.1", "36.4.2": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1",
    "38.2.0": "7.0", "38.4.0": "7.1", "39.2.0": "7.2",
}  # fmt: skip
# Zones that show a fixed value or the value of a gated unit.
_DUMMY_ZONES = {"PMIC", "PMIC-Die"}
_GATED_C = -256.0


def release(text: str) -> str | Unknown:
    """Return the L4T version in /etc/nv_tegra_release, such as "36.4.3"."""
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else Unknown("no release line")


def jetpack(version: str) -> str | Unknown:
    """Return the JetPack that brought an L4T version."""
    return _JETPACKS.get(version) or Unknown(f"L4T {version} is not in edgekit's table")


def power_mode(text: str) -> str | Unknown:
    """Return the power mode's name in `nvpmodel -q`; the number means different things on each module."""
    found = re.search(r"^NV Power Mode:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else Unknown("nvpmodel names no mode")


@dataclass(frozen=True, kw_only=True)
class Tegra:
    """One line of tegrastats.

    Attributes:
        temperatures_c: By zone.
        power_w: By rail, now.
        cpu_mhz: Of each core that is on.
        cores_off: How many are off.
        gpu_mhz: Highest GPU clock; unknown where the line has none (not run as root).
        ram_mb: In use.
        unknown: What the line shows without a value, with the reason.
    """

    temperatures_c: Mapping[str, float]
    power_w: Mapping[str, float]
    cpu_mhz: tuple[int, ...]
    cores_off: int
    gpu_mhz: int | Unknown
    ram_mb: int | Unknown
    unknown: Mapping[str, str] = field(default_factory=dict)


def tegrastats(line: str) -> Tegra:
    """Return what one line says; JetPack 4 to 7 write it differently."""
    temperatures, unknown = {}, {}
    for zone, value in re.findall(r"([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C\b", line):
        if zone in _DUMMY_ZONES:
            unknown[zone] = "a fixed value, no sensor"
        elif float(value) <= _GATED_C:
            unknown[zone] = "power-gated"
        else:
            temperatures[zone] = float(value)
    cores = re.search(r"CPU \[([^\]]*)\]", line)
    each = cores[1].split(",") if cores else []
    clocks = [re.search(r"@(\d+)", c) for c in each]
    gpu = re.search(r"GR3D_FREQ \d+%@\[?([\d,]+)", line)
    ram = re.search(r"RAM (\d+)/\d+MB", line)
    return Tegra(
        temperatures_c=temperatures, power_w=_rails(line), cpu_mhz=tuple(int(c[1]) for c in clocks if c),
        cores_off=sum(c.strip() == "off" for c in each),
        gpu_mhz=max(int(v) for v in gpu[1].split(",")) if gpu else Unknown("tegrastats shows no GPU clock"),
        ram_mb=int(ram[1]) if ram else Unknown("tegrastats shows no RAM"),
        unknown=unknown,
    )  # fmt: skip


def _rails(line: str) -> dict[str, float]:
    """Return power by rail: "now/average" with or without mW, or one value with it; NC is not connected."""
    found = re.findall(r"\b([A-Z][A-Z0-9_]{2,}) (\d+)(?:mW(?:/\d+mW)?|/\d+)(?=\s|$)", line)
    return {name: int(value) / 1000 for name, value in found if name not in {"RAM", "SWAP", "IRAM"}}
