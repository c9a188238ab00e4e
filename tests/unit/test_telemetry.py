"""Sensors beside a run: what they cost, what they say, and what they leave open."""

import threading
import time
from pathlib import Path

import pytest

from edgekit.machine.readings import Unknown
from edgekit.machine.sensors import Sensor, Sensors
from edgekit.measure import telemetry
from edgekit.measure.energy import Phases, energy_of, integral, risen
from edgekit.measure.telemetry import Sampler, throttling

pytestmark = pytest.mark.light


def sensor(kind: str, name: str, **words: float) -> Sensor:
    """Return a sensor that is never read."""
    return Sensor(kind=kind, name=name, read=lambda: 0.0, **words)


def tree(root: Path) -> Path:
    """Write a board with one zone, one clock and one cooling device."""
    files = {
        "class/thermal/thermal_zone0/type": "cpu-thermal", "class/thermal/thermal_zone0/temp": "48800",
        "class/thermal/cooling_device0/type": "cpufreq", "class/thermal/cooling_device0/cur_state": "0",
        "devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1500000",
        "devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "2400000",
    }  # fmt: skip
    for name, text in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_board_that_gets_hot_and_slow_is_called_throttled(tmp_path: Path):
    sys = tree(tmp_path) / "sys"
    with Sampler(hz=50, root=tmp_path) as sampler:
        began = sampler.now_s()
        time.sleep(0.3)
        (sys / "class/thermal/thermal_zone0/temp").write_text("86000")
        (sys / "class/thermal/cooling_device0/cur_state").write_text("3")
        (sys / "devices/system/cpu/cpufreq/policy0/scaling_cur_freq").write_text("1000000")
        time.sleep(0.5)
        report = sampler.report(began, sampler.now_s())
    assert report.throttled == "yes"
    assert any("cooling cpufreq reached state 3" in r for r in report.reasons)
    assert any("policy0 fell from 1500 to 1000 MHz" in r for r in report.reasons)
    assert report.columns["temperature cpu-thermal"][0] == 48.8
    assert report.columns["temperature cpu-thermal"][-1] == 86.0
    assert len(report.at_s) == len(report.columns["temperature cpu-thermal"])


def test_a_calm_board_is_not_throttled_and_one_without_sensors_is_unknown(tmp_path: Path):
    tree(tmp_path / "calm")
    for root, state in ((tmp_path / "calm", "no"), (tmp_path / "bare", "unknown")):
        with Sampler(hz=50, root=root) as sampler:
            time.sleep(0.2)
            report = sampler.report(0, sampler.now_s())
        assert report.throttled in {state, "yes"}  # a busy machine may fail the loop check
        assert report.throttled == state or "fixed loop" in report.reasons[0]
    assert "no /sys/class/thermal" in report.missing["temperature"]


def test_a_zone_that_hangs_is_left_alone_and_the_others_are_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ended = threading.Event()

    def slow() -> float:
        ended.wait(0.4)
        return 1.0

    found = Sensors(
        found=(Sensor(kind="temperature", name="gated", read=slow), Sensor(kind="temperature", name="cpu", read=lambda: 50.0)),
        missing={},
    )  # fmt: skip
    monkeypatch.setattr(telemetry, "sensors", lambda root: found)
    with Sampler(hz=20) as sampler:
        time.sleep(1.0)
        report = sampler.report(0, sampler.now_s())
    ended.set()
    assert "too long" in report.missing["temperature gated"]
    assert sum(v is not None for v in report.columns["temperature cpu"]) > 5
    assert sum(v is not None for v in report.columns["temperature gated"]) <= 1


def test_a_reading_that_fails_now_and_then_is_null_and_not_zero(monkeypatch: pytest.MonkeyPatch):
    turns = iter(range(10**6))

    def flaky() -> float | Unknown:
        return Unknown("power-gated") if next(turns) % 2 else 40.0

    found = Sensors(found=(Sensor(kind="temperature", name="gpu", read=flaky),), missing={})
    monkeypatch.setattr(telemetry, "sensors", lambda root: found)
    with Sampler(hz=50) as sampler:
        time.sleep(0.3)
        report = sampler.report(0, sampler.now_s())
    assert set(report.columns["temperature gpu"]) == {40.0, None}
    assert "power-gated" in report.missing["temperature gpu"]


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("cooling", [0, 0, 2], "reached state 2"),
        ("clock", [2000] * 5 + [1800] * 5, "fell from 2000 to 1800 MHz"),
        ("events", [5, 5, 9], "4 over-current events"),
        ("firmware", [0x0, 0x0, 0x50005], "firmware: "),
        ("clock", [600] * 3 + [600] * 7, ""),
        ("cooling", [3, 3, 3], ""),
        ("events", [5, 5, 5], ""),
    ],
)
def test_each_sensor_says_what_makes_it_throttled(kind: str, values: list[float], words: str):
    reasons, asked = throttling({sensor(kind, "x"): values})
    assert asked
    assert (words in reasons[0]) if words else not reasons


def test_energy_is_the_integral_of_power_less_the_idle_power():
    rail = sensor("power", "VDD_IN", step=0.04)
    idle, busy = [(t / 10, 2.0) for t in range(600)], [(60 + t / 10, 5.0) for t in range(600)]
    after = [(120 + t / 10, 2.2) for t in range(600)]
    phases = Phases(before=(0, 60), run=(60, 120), after=(120, 180))
    found = energy_of({rail: [*idle, *busy, *after]}, phases, 1000, why_not="")
    # 5 W for 60 s are 300 J; idle is 2.1 W on average, so 126 J of them would have been used anyway.
    assert found.state == "measured"
    assert found.gross_j == pytest.approx(0.300, rel=1e-3)
    assert found.net_j == pytest.approx(0.174, rel=5e-3)
    assert found.mean_w == pytest.approx(5.0, rel=1e-3)
    assert found.idle_w == pytest.approx(2.1, rel=1e-2)
    assert found.error_j == pytest.approx((0.04 + 0.2) * 60 / 1000, rel=0.05)
    assert "VDD_IN" in found.method


def test_a_rail_that_is_no_total_gives_no_energy():
    found = energy_of(
        {sensor("power", "VDD_SOC"): [(0, 1.0), (1, 1.0)]},
        Phases(before=None, run=(0, 1), after=None),
        1,
        why_not="",
    )
    assert found.state == "n/a"
    assert "VDD_SOC" in found.why


def test_a_counter_that_wraps_goes_on_from_zero():
    assert risen([(0, 990.0), (1, 998.0), (2, 6.0)], 0, 2, top=1000.0) == (16.0, 2)
    package = sensor("energy", "package-0", limit=1000.0)
    found = energy_of(
        {package: [(0, 990.0), (1, 998.0), (2, 6.0)]},
        Phases(before=None, run=(0, 2), after=None),
        4,
        why_not="",
    )
    assert found.gross_j == pytest.approx(4.0)
    assert found.mean_w == pytest.approx(8.0)
    assert found.net_j is None


def test_the_integral_of_a_ramp_is_exact_and_of_one_reading_unknown():
    assert integral([(0, 0.0), (1, 2.0), (2, 4.0)], 0, 2) == pytest.approx(4.0)
    assert integral([(0, 1.0)], 0, 2) is None


def test_reading_ten_times_a_second_costs_less_than_one_percent_of_a_core(tmp_path: Path):
    tree(tmp_path)
    with Sampler(hz=10, root=tmp_path) as sampler:
        time.sleep(3.0)
        report = sampler.report(0, sampler.now_s())
    # CPU seconds of the thread over wall time: other processes do not count into it.
    assert 0 < report.cost < 0.01
