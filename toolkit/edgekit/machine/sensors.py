"""Find the sensors of a machine in /sys and read them: temperatures, clocks, power, throttling."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.machine import raspberry
from edgekit.machine.probe import asked
from edgekit.machine.readings import Unknown, number_of, plain_text, text_of

Reader = Callable[[], "float | Unknown"]
# Rails that are the whole board's input where they exist; their sub-rails are not added to them.
_TOTALS = ("VDD_IN", "POM_5V_IN")
# AGX boards have no single total: these are their input rails (jetson_stats issues 51 and 344).
_AGX_INPUTS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
_GATED = -256000
_TOOL_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """One thing that can be read again and again.

    Attributes:
        kind: "temperature" (degrees Celsius), "clock" (MHz), "power" (W), "energy" (J, a counter), "cooling"
            (state), "events" (a counter) or "firmware" (bits).
        name: Zone, rail or policy.
        read: Gives the value now.
        limit: Highest clock in MHz, or the range of a counter in J, 0 where there is none.
        step: Smallest step of the value: the error of one reading.
    """

    kind: str
    name: str
    read: Reader
    limit: float = 0.0
    step: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Sensors:
    """What a machine can tell, and what it cannot, with the reason."""

    found: tuple[Sensor, ...]
    missing: dict[str, str]

    def of(self, kind: str) -> list[Sensor]:
        """Return the sensors of one kind."""
        return [s for s in self.found if s.kind == kind]


def sensors(root: Path = Path("/")) -> Sensors:
    """Return the sensors under `root`; one that cannot be read now stays out, with the reason."""
    missing: dict[str, str] = {}
    found: list[Sensor] = []
    names: dict[tuple[str, str], int] = {}
    sys = root / "sys"
    groups = (
        _zones(sys),
        _clocks(sys),
        _rails(sys),
        _rapl(sys),
        _cooling(sys),
        _over_current(sys),
        _firmware(sys),
    )
    for group in groups:
        for one in group:
            # An x86 has a cooling device for each core, all called "Processor": each gets its number.
            number = names[one.kind, one.name] = names.get((one.kind, one.name), 0) + 1
            sensor = replace(one, name=f"{one.name} {number}") if number > 1 else one
            value = sensor.read()
            if isinstance(value, Unknown):
                missing[f"{sensor.kind} {sensor.name}"] = value.why
            else:
                found.append(sensor)
    for kind, where in _WHERE.items():
        known = any(s.kind == kind for s in found) or any(k.startswith(f"{kind} ") for k in missing)
        if not known:
            missing[kind] = where
    if not any(s.kind in {"power", "energy"} for s in found):
        missing["power"] = "; ".join(v for k, v in missing.items() if k.startswith(("power", "energy")))
    return Sensors(found=tuple(found), missing=missing)


_WHERE = {
    "temperature": "no /sys/class/thermal/thermal_zone*",
    "clock": "no /sys/devices/system/cpu/cpufreq/policy*",
    "power": "no INA3221 in /sys/class/hwmon and no RAPL in /sys/class/powercap",
}


def _zones(sys: Path) -> Iterator[Sensor]:
    for zone in _numbered(sys / "class/thermal", "thermal_zone"):
        name = plain_text(zone / "type") or zone.name
        if name != "PMIC-Die":  # A fixed value on Jetsons.
            yield Sensor(kind="temperature", name=name, read=_millidegrees(zone / "temp"))


def _millidegrees(path: Path) -> Reader:
    def read() -> float | Unknown:
        found = number_of(path)
        if isinstance(found, int) and found <= _GATED:
            return Unknown("power-gated")
        return found if isinstance(found, Unknown) else found / 1000

    return read


def _clocks(sys: Path) -> Iterator[Sensor]:
    policies = _numbered(sys / "devices/system/cpu/cpufreq", "policy")
    policies = policies or [c / "cpufreq" for c in _numbered(sys / "devices/system/cpu", "cpu")]
    for policy in policies:
        if not policy.is_dir():
            continue
        top = number_of(policy / "cpuinfo_max_freq")
        name = policy.name if policy.name != "cpufreq" else policy.parent.name
        limit = 0.0 if isinstance(top, Unknown) else top / 1000
        yield Sensor(kind="clock", name=name, read=_scaled(policy / "scaling_cur_freq", 1e-3), limit=limit)
    for device in sorted((sys / "class/devfreq").glob("*")):
        if re.search(r"gpu|emc", device.name):
            top = number_of(device / "max_freq")
            limit = 0.0 if isinstance(top, Unknown) else top / 1e6
            yield Sensor(kind="clock", name=device.name, read=_scaled(device / "cur_freq", 1e-6), limit=limit)


def _rails(sys: Path) -> Iterator[Sensor]:
    """Give the INA3221 channels by label: numbers of hwmon folders move between boots."""
    for chip in sorted((sys / "class/hwmon").glob("hwmon*")):
        if plain_text(chip / "name") != "ina3221":
            continue
        for label in sorted(chip.glob("in*_label")):
            name = plain_text(label)
            number = label.name.removeprefix("in").removesuffix("_label")
            if name in {"", "NC", "sum of shunt voltages"}:
                continue
            volts, amperes = chip / f"in{number}_input", chip / f"curr{number}_input"
            # One step of the chip is 40 uV at the shunt: 8 mA at 5 milliohm (INA3221 data sheet).
            milli = number_of(volts)
            step = 0.008 * (milli / 1000) if isinstance(milli, int) else 0.0
            yield Sensor(kind="power", name=name, read=_product(volts, amperes), step=step)


def _product(volts: Path, amperes: Path) -> Reader:
    def read() -> float | Unknown:
        u, i = number_of(volts), number_of(amperes)
        if isinstance(u, Unknown):
            return u
        return i if isinstance(i, Unknown) else u * i / 1e6

    return read


def _rapl(sys: Path) -> Iterator[Sensor]:
    """Give the package and memory counters; the mmio twin counts the same energy once more."""
    for zone in sorted((sys / "class/powercap").glob("intel-rapl:*")):
        top = number_of(zone / "max_energy_range_uj")
        name = plain_text(zone / "name") or zone.name
        limit = 0.0 if isinstance(top, Unknown) else top / 1e6
        yield Sensor(kind="energy", name=name, read=_energy(zone / "energy_uj"), limit=limit)


def _energy(path: Path) -> Reader:
    def read() -> float | Unknown:
        found = number_of(path)
        if isinstance(found, Unknown):
            rule = "RAPL is root's since Linux 5.10: chmod a+r energy_uj by a udev rule"
            return Unknown(f"{found.why}; {rule}" if found.why == "Permission denied" else found.why)
        return found / 1e6

    return read


def _cooling(sys: Path) -> Iterator[Sensor]:
    for device in _numbered(sys / "class/thermal", "cooling_device"):
        name = plain_text(device / "type") or device.name
        if "fan" not in name.lower():
            yield Sensor(kind="cooling", name=name, read=_scaled(device / "cur_state", 1))


def _over_current(sys: Path) -> Iterator[Sensor]:
    for chip in sorted((sys / "class/hwmon").glob("hwmon*")):
        if plain_text(chip / "name") == "soctherm_oc":
            for counter in sorted(chip.glob("oc*_event_cnt")):
                yield Sensor(
                    kind="events", name=counter.name.removesuffix("_event_cnt"), read=_scaled(counter, 1)
                )


def _firmware(sys: Path) -> Iterator[Sensor]:
    path = sys / "devices/platform/soc/soc:firmware/get_throttled"
    if path.exists():
        yield Sensor(kind="firmware", name="get_throttled", read=_bits(path))
        return
    if "Raspberry Pi" in plain_text(sys / "firmware/devicetree/base/model") and shutil.which("vcgencmd"):
        yield Sensor(kind="firmware", name="vcgencmd", read=_tool("get_throttled", raspberry.throttled_bits))
        # A Pi 5 measures its SoC's rails and not its input: the plot has them, no energy is made of them.
        yield Sensor(kind="power", name="SoC rails", read=_tool("pmic_read_adc", _sum_of_rails))


def _sum_of_rails(text: str) -> float | Unknown:
    rails = raspberry.rails_w(text)
    return rails if isinstance(rails, Unknown) else sum(rails.values())


def _tool(word: str, parse: Callable[[str], float | Unknown]) -> Reader:
    """Return a reader that asks the firmware's tool, every few seconds: each answer is a process of its own."""
    kept: list[tuple[float, float | Unknown]] = []

    def read() -> float | Unknown:
        now = time.monotonic()
        if not kept or now - kept[0][0] > _TOOL_EVERY_S:
            kept[:] = [(now, parse(asked("vcgencmd", word)))]
        return kept[0][1]

    return read


def _bits(path: Path) -> Reader:
    def read() -> float | Unknown:
        found = text_of(path)
        return found if isinstance(found, Unknown) else raspberry.throttled_bits(found)

    return read


def _scaled(path: Path, factor: float) -> Reader:
    def read() -> float | Unknown:
        found = number_of(path)
        return found if isinstance(found, Unknown) else found * factor

    return read


def _numbered(folder: Path, prefix: str) -> list[Path]:
    """Return the folders PREFIX0, PREFIX1, … in the order of their numbers."""
    found = [p for p in folder.glob(f"{prefix}*") if p.name.removeprefix(prefix).isdigit()]
    return sorted(found, key=lambda p: int(p.name.removeprefix(prefix)))


def total_rails(names: list[str]) -> tuple[str, ...]:
    """Return the rails that add up to the board's input power, empty where none is known to."""
    for name in _TOTALS:
        if name in names:
            return (name,)
    agx = tuple(n for n in _AGX_INPUTS if n in names)
    return agx if len(agx) > 1 else ()
