"""Read a machine's sensors beside a run, in a thread, and judge from them whether it was throttled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgekit.core.result import Telemetry
from edgekit.machine import raspberry
from edgekit.machine.readings import Unknown
from edgekit.machine.sensors import Sensor, Sensors, sensors
from edgekit.measure.percentiles import median

# A sensor that takes longer than this to read is left alone: a gated zone can hold a reader up for seconds.
_SLOW_S = 0.25
_SPINS, _SPIN_LOOP = 5, 20_000
_SPIN_EVERY_S = 1.0
# Of the clock's highest value under load, and of the spin loop's time at the start.
_CLOCK_FALL, _SPIN_RISE = 0.95, 1.03
_KEPT, _HELD = 3600, 36_000


class Sampler:
    """Reads all sensors `hz` times a second between `start` and `stop`; a context manager."""

    def __init__(self, *, hz: float, root: Path = Path("/")) -> None:
        self.hz = hz
        self._found: Sensors = sensors(root)
        self._live: list[Sensor] = list(self._found.found)
        # Time and values of each reading; replaced as a whole, since another thread reads it.
        self._rows: list[tuple[float, dict[str, float]]] = []
        self._stride, self._count = 1, 0
        self._spins: list[tuple[float, float]] = []
        self._missing = dict(self._found.missing)
        self._ended = threading.Event()
        self._cpu_s = 0.0
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._read_on, daemon=True)

    def __enter__(self) -> Sampler:
        """Start reading."""
        self._began = time.perf_counter()
        if self.hz > 0:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reading; a reader that hangs is left behind."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def now_s(self) -> float:
        """Return the seconds since the start, the clock of all readings."""
        return time.perf_counter() - self._began

    @property
    def sensors(self) -> Sensors:
        """What is read."""
        return self._found

    def column(self, sensor: Sensor) -> list[tuple[float, float]]:
        """Return time and value of each reading of one sensor."""
        key = _key(sensor)
        return [(t, row[key]) for t, row in self._rows if key in row]

    def _read_on(self) -> None:
        due, spin_due = 0.0, 0.0
        while not self._ended.wait(max(due - self.now_s(), 0.0)):
            at = self.now_s()
            self._add(at, self._row())
            if at >= spin_due:
                self._spins.append((at, spin_ms()))
                spin_due = at + _SPIN_EVERY_S
            self._cpu_s = time.thread_time()
            due = max(due + 1 / self.hz, self.now_s())

    def _add(self, at: float, row: dict[str, float]) -> None:
        """Keep a reading; of a run of days every second one is let go, again and again."""
        if self._count % self._stride == 0:
            self._rows.append((at, row))
        self._count += 1
        if len(self._rows) > _HELD:
            self._rows = self._rows[::2]
            self._stride *= 2

    def _row(self) -> dict[str, float]:
        row = {}
        for sensor in list(self._live):
            began = time.perf_counter()
            value = sensor.read()
            if time.perf_counter() - began > _SLOW_S:
                self._live.remove(sensor)
                self._missing[_key(sensor)] = "took too long to read and was left alone"
            if isinstance(value, Unknown):
                self._missing.setdefault(_key(sensor), f"some readings failed: {value.why}")
            else:
                row[_key(sensor)] = float(value)
        return row

    def report(self, began_s: float, ended_s: float) -> Telemetry:
        """Return what was read, judged between two times of this sampler's clock."""
        rows = list(self._rows)
        rows = rows[:: max(1, -(-len(rows) // _KEPT))]
        names = [_key(s) for s in self._found.found]
        wall = max(self.now_s(), 1e-9)
        state, reasons = self._judged(began_s, ended_s)
        return Telemetry(
            hz=self.hz, at_s=tuple(round(at - began_s, 3) for at, _ in rows),
            columns={n: tuple(_rounded(row.get(n)) for _, row in rows) for n in names},
            missing=self._missing, cost=round(self._cpu_s / wall, 6), throttled=state, reasons=reasons,
            spin=self._spin(began_s, ended_s),
        )  # fmt: skip

    def _spin(self, began_s: float, ended_s: float) -> float | None:
        """Return the loop's time in the run's last third over that in its first."""
        inside = [ms for t, ms in self._spins if began_s <= t <= ended_s]
        third = len(inside) // 3
        return round(min(inside[-third:]) / min(inside[:third]), 4) if third >= 3 else None

    def _judged(self, began_s: float, ended_s: float) -> tuple[str, tuple[str, ...]]:
        columns = {s: [v for t, v in self.column(s) if began_s <= t <= ended_s] for s in self._found.found}
        reasons, asked = throttling(columns)
        spin = self._spin(began_s, ended_s)
        if spin is not None and spin > _SPIN_RISE:
            reasons.append(
                f"a fixed loop took {100 * (spin - 1):.0f} % longer at the end: clock or other load"
            )
        if reasons:
            return "yes", tuple(reasons)
        return ("no" if asked else "unknown"), ()


def throttling(columns: Mapping[Sensor, Sequence[float]]) -> tuple[list[str], bool]:
    """Return what says that the machine was throttled, and whether any sensor could have said so.

    A clock is held against itself: an idle cluster is slow without being throttled.
    """
    reasons, asked = [], False
    for sensor, values in columns.items():
        judge = _JUDGES.get(sensor.kind)
        if judge is None or len(values) < 2:
            continue
        asked = True
        if found := judge(sensor, values):
            reasons.append(found)
    return reasons, asked


def _cooling(sensor: Sensor, values: Sequence[float]) -> str:
    return f"cooling {sensor.name} reached state {max(values):g}" if max(values) > values[0] else ""


def _clock(sensor: Sensor, values: Sequence[float]) -> str:
    third = max(len(values) // 3, 1)
    early, late = median(values[:third]), median(values[-third:])
    return f"{sensor.name} fell from {early:.0f} to {late:.0f} MHz" if late < _CLOCK_FALL * early else ""


def _events(sensor: Sensor, values: Sequence[float]) -> str:
    return (
        f"{values[-1] - values[0]:g} over-current events on {sensor.name}" if values[-1] > values[0] else ""
    )


def _firmware(_: Sensor, values: Sequence[float]) -> str:
    found = sorted({w for v in values for w in raspberry.newly(int(values[0]), int(v))})
    return f"firmware: {', '.join(found)}" if found else ""


_JUDGES: dict[str, Callable[[Sensor, Sequence[float]], str]] = {
    "cooling": _cooling, "clock": _clock, "events": _events, "firmware": _firmware,
}  # fmt: skip


def spin_ms() -> float:
    """Return the shortest time of a fixed loop of integers, in milliseconds: the clock, seen from inside."""
    best = float("inf")
    for _ in range(_SPINS):
        began, total = time.perf_counter_ns(), 0
        for k in range(_SPIN_LOOP // _SPINS):
            total += k
        best = min(best, (time.perf_counter_ns() - began) / 1e6)
    return best


def _key(sensor: Sensor) -> str:
    return f"{sensor.kind} {sensor.name}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
