"""What boards say, read from recorded samples (tests/samples/README.md tells where each is from)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edgekit.machine import jetson, npus, raspberry
from edgekit.machine.cpuinfo import board_lines, cpu_name, flags, processors
from edgekit.machine.probe import passport
from edgekit.machine.readings import Unknown, number_of, text_of
from edgekit.machine.sensors import sensors, total_rails
from tests.conftest import ROOT

pytestmark = pytest.mark.light
SAMPLES = ROOT / "tests" / "samples"


def sample(name: str) -> str:
    return (SAMPLES / name).read_text()


@pytest.fixture
def tree(tmp_path: Path):
    """A function that lays out a recorded tree of /sys; a value `!EAGAIN` makes the read fail so."""
    held: list[int] = []

    def lay(name: str) -> Path:
        for line in sample(name).splitlines():
            path, _, value = line.partition("\t")
            file = tmp_path / "sys" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if value == "!EAGAIN":
                os.mkfifo(file)  # A pipe with a writer and nothing in it answers EAGAIN.
                held.append(os.open(file, os.O_RDWR | os.O_NONBLOCK))
            elif value.startswith("!"):
                file.mkdir()  # root reads what is forbidden, but nobody reads a folder.
            else:
                file.write_text(value + "\n")
        return tmp_path

    yield lay
    for number in held:
        os.close(number)


@pytest.mark.parametrize(
    ("name", "version", "pack"),
    [
        ("r32.6.1_nano", "32.6.1", "4.6"), ("r36.4.3", "36.4.3", "6.2"), ("r36.4.4", "36.4.4", "6.2.1"),
        ("r39.2", "39.2.0", "7.2"),
    ],
)  # fmt: skip
def test_the_release_of_a_jetson(name: str, version: str, pack: str):
    assert jetson.release(sample(f"nv_tegra_release_{name}.txt")) == version
    assert jetson.jetpack(version) == pack


def test_an_unknown_release_is_unknown():
    assert isinstance(jetson.release("nothing"), Unknown)
    assert isinstance(jetson.jetpack("99.1.0"), Unknown)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("orin_nano_super", "MAXN_SUPER"), ("fan_line_maxn", "MAXN"), ("jp5_15w", "MODE_15W"),
        ("errors", "MODE_15W_DESKTOP"),
    ],
)  # fmt: skip
def test_the_power_mode_is_taken_by_name(name: str, mode: str):
    assert jetson.power_mode(sample(f"nvpmodel_q_{name}.txt")) == mode


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("tegrastats_*.txt")), ids=lambda p: p.stem)
def test_every_tegrastats_line_gives_temperatures_power_and_memory(path: Path):
    found = jetson.tegrastats(path.read_text())
    assert found.temperatures_c
    assert all(0 < v < 110 for v in found.temperatures_c.values())
    assert found.power_w
    assert isinstance(found.ram_mb, int)
    assert "NC" not in found.power_w


def test_gated_zones_dummies_and_cores_that_are_off_are_no_numbers():
    agx = jetson.tegrastats(sample("tegrastats_agx_orin_jp5.txt"))
    assert agx.unknown == dict.fromkeys(("CV0", "CV1", "GPU", "CV2"), "power-gated")
    assert agx.power_w["VIN_SYS_5V0"] == pytest.approx(4.032)
    nano = jetson.tegrastats(sample("tegrastats_orin_nano_cores_off.txt"))
    assert (nano.cores_off, len(nano.cpu_mhz)) == (2, 4)
    assert "PMIC" in nano.unknown
    assert nano.power_w["VDD_IN"] == pytest.approx(5.765)
    assert isinstance(nano.gpu_mhz, Unknown)
    assert jetson.tegrastats(sample("tegrastats_orin_nano_jp6.txt")).gpu_mhz == 621
    assert jetson.tegrastats(sample("tegrastats_tx2nx_old_units.txt")).power_w["VDD_IN"] == pytest.approx(
        5.297
    )


@pytest.mark.parametrize(
    ("text", "now", "before"),
    [
        ("0x0", [], []), ("0x50000", [], ["under-voltage", "throttled"]),
        ("0x50005", ["under-voltage", "throttled"], ["under-voltage", "throttled"]),
        ("0x80000", [], ["soft temperature limit"]),
    ],
)  # fmt: skip
def test_the_bits_of_a_pi(text: str, now: list[str], before: list[str]):
    bits = raspberry.throttled_bits(sample(f"vcgencmd_get_throttled_{text}.txt"))
    assert isinstance(bits, int)
    assert raspberry.words_of(bits) == {"now": now, "since boot": before}


def test_an_error_of_vcgencmd_is_unknown_though_it_exits_with_0():
    text = sample("vcgencmd_no_video_group.txt")
    assert raspberry.throttled_bits(text) == Unknown("VCHI initialization failed")
    assert isinstance(raspberry.rails_w(text), Unknown)


def test_sticky_bits_count_only_when_they_are_new():
    assert raspberry.newly(0x50000, 0x50000) == []
    assert raspberry.newly(0x10000, 0x50000) == ["throttled"]
    assert raspberry.newly(0, 0x50005) == ["under-voltage", "throttled"]


def test_a_pi_5s_rails_add_up_to_the_soc_side():
    rails = raspberry.rails_w(sample("vcgencmd_pmic_read_adc_pi5.txt"))
    assert isinstance(rails, dict)
    assert len(rails) == 12
    assert sum(rails.values()) == pytest.approx(1.90, abs=0.005)


@pytest.mark.parametrize(
    ("name", "cpu", "dot"),
    [
        ("pi4", "4x Cortex-A72", False), ("pi5", "4x Cortex-A76", True),
        ("rk3588", "4x Cortex-A55 + 4x Cortex-A76", True), ("orin_nano", "6x Cortex-A78AE", True),
        ("xavier_agx", "8x Carmel", False), ("qemu_cortex-a53", "Cortex-A53", False),
        ("qemu_cortex-a72", "Cortex-A72", False), ("qemu_cortex-a76", "Cortex-A76", True),
    ],
)  # fmt: skip
def test_the_cores_of_an_arm_board(name: str, cpu: str, dot: bool):
    text = sample(f"cpuinfo_{name}.txt")
    assert cpu_name(text).endswith(cpu.removeprefix("1x "))
    assert ("asimddp" in flags(text)) == dot


def test_mixed_cores_have_only_the_features_of_all():
    text = sample("cpuinfo_tx2_mixed.txt")
    assert "Denver 2" in cpu_name(text)
    assert "Cortex-A57" in cpu_name(text)
    each = [set(c["Features"].split()) for c in processors(text)]
    assert flags(text) == set.intersection(*each)


def test_a_pis_model_line_is_no_core():
    assert "Raspberry Pi" in board_lines(sample("cpuinfo_pi5.txt"))["Model"]


def test_npus():
    assert npus.rknpu_load(sample("rknpu_load.txt")) == (25, 50, 100)
    assert npus.rknpu_load(sample("rknpu_load_idle.txt")) == (0, 0, 0)
    assert npus.rknpu_load(sample("rknpu_load_single.txt")) == (0,)
    assert npus.rknpu_version(sample("rknpu_version.txt")) == "0.9.8"
    assert isinstance(npus.rknpu_version(sample("rknpu_dmesg.txt").splitlines()[0]), str)
    assert npus.hailo(sample("hailortcli_identify_8l.txt")) == "HAILO8L"
    assert isinstance(npus.hailo("nothing"), Unknown)


def test_gated_zones_answer_without_holding_the_reader_up(tree):
    found = sensors(tree("tree_thermal_orin_nano.tsv"))
    assert {s.name: s.read() for s in found.of("temperature")} == {
        "cpu-thermal": 63.625, "soc0-thermal": 61.0, "soc1-thermal": 61.5, "soc2-thermal": 60.5, "tj-thermal": 63.781,
    }  # fmt: skip
    assert found.missing["temperature gpu-thermal"] == "Resource temporarily unavailable"


def test_zones_of_other_boards(tree):
    assert [s.name for s in sensors(tree("tree_thermal_rk3588.tsv")).of("temperature")][0] == "soc-thermal"


def test_zones_without_a_value_are_missing_with_the_reason(tree):
    found = sensors(tree("tree_thermal_nano.tsv"))
    assert not found.of("temperature")
    assert found.missing["temperature CPU-therm"] == "No such file or directory"
    assert "temperature PMIC-Die" not in found.missing


def test_rails_are_found_by_label_and_a_total_is_not_added_to(tree):
    found = sensors(tree("tree_hwmon_orin_nano.tsv"))
    power = {s.name: s.read() for s in found.of("power")}
    assert power["VDD_IN"] == pytest.approx(4.984 * 1.856)
    assert set(power) == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}
    assert total_rails(list(power)) == ("VDD_IN",)
    assert next(s.step for s in found.of("power") if s.name == "VDD_IN") == pytest.approx(0.040, abs=0.001)
    assert {s.name: s.read() for s in found.of("events")} == {"oc1": 0, "oc2": 15, "oc3": 37}


def test_an_agx_has_no_single_total():
    agx = jetson.tegrastats(sample("tegrastats_agx_orin_jp6.txt")).power_w
    assert total_rails(list(agx)) == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert total_rails(["VDD_SOC"]) == ()


def test_a_pis_firmware_bits_are_read_without_0x(tree):
    assert [s.read() for s in sensors(tree("tree_hwmon_pi_volt.tsv")).of("firmware")] == [0x50005]


def test_clusters_have_their_own_clocks(tree):
    found = sensors(tree("tree_cpufreq_rk3588.tsv"))
    assert {s.name: (s.read(), s.limit) for s in found.of("clock")} == {
        "policy0": (1800.0, 1800.0), "policy4": (2400.0, 2400.0), "policy6": (2400.0, 2400.0),
    }  # fmt: skip


def test_rapl_counts_a_package_once_and_says_what_it_may_not_read(tree):
    found = sensors(tree("tree_rapl.tsv"))
    assert [(s.name, round(s.limit)) for s in found.of("energy")] == [("package-0", 262143)]
    assert "energy core" in found.missing


def test_a_machine_without_sensors_says_so(tmp_path: Path):
    found = sensors(tmp_path)
    assert not found.found
    assert set(found.missing) == {"temperature", "clock", "power"}


def test_numbers_and_texts_that_are_none_are_unknown(tmp_path: Path):
    (tmp_path / "a").write_text("abc\n")
    assert number_of(tmp_path / "a") == Unknown("'abc' is no number")
    assert text_of(tmp_path / "none") == Unknown("No such file or directory")


def test_a_boards_passport_from_its_files(tmp_path: Path):
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/device-tree/model").write_bytes((SAMPLES / "dt_model_orin_nano_super.bin").read_bytes())
    (tmp_path / "proc/cpuinfo").write_text(sample("cpuinfo_orin_nano.txt"))
    (tmp_path / "etc/nv_tegra_release").write_text(sample("nv_tegra_release_r36.4.3.txt"))
    (tmp_path / "proc/meminfo").write_text(sample("meminfo_pi5_8gb.txt"))
    found = passport(tmp_path)
    assert found["board"].startswith("NVIDIA Jetson Orin Nano")
    assert "\0" not in found["board"]
    assert (found["l4t"], found["jetpack"], found["cpu"]) == ("36.4.3", "6.2", "6x Cortex-A78AE")
    assert found["memory_mb"] == 8058
    assert "emulated" not in found


def test_the_power_mode_comes_from_the_boards_own_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = tmp_path / "nvpmodel"
    tool.write_text(f"#!/bin/sh\ncat {SAMPLES / 'nvpmodel_q_errors.txt'}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(sample("nv_tegra_release_r36.4.4.txt"))
    assert passport(tmp_path)["power_mode"] == "MODE_15W_DESKTOP"


def test_a_pi_without_the_kernels_file_is_asked_by_its_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = tmp_path / "bin" / "vcgencmd"
    tool.parent.mkdir()
    adc = Path(__file__).parent.parent / "samples" / "vcgencmd_pmic_read_adc_pi5.txt"
    tool.write_text(f'#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50005 || cat {adc}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    tree = tmp_path / "sys/firmware/devicetree/base"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    found = {f"{s.kind} {s.name}": s.read() for s in sensors(tmp_path).found}
    assert found["firmware vcgencmd"] == 0x50005
    assert found["power SoC rails"] == pytest.approx(1.90, abs=0.005)
    (tree / "model").write_bytes(b"Rock 5B\0")
    assert not [s for s in sensors(tmp_path).found if s.kind == "firmware"]


def test_an_rknpu_stands_in_the_passport(tmp_path: Path):
    folder = tmp_path / "sys/kernel/debug/rknpu"
    folder.mkdir(parents=True)
    (folder / "version").write_text("RKNPU driver: v0.9.8\n")
    assert passport(tmp_path)["npu"] == "RKNPU driver 0.9.8"


@pytest.mark.parametrize(
    ("libc", "words"),
    [("glibc 2.17", "glibc 2.17"), ("musl 1.2", "not glibc")],
)
def test_a_board_too_old_for_an_engine_is_told_so_before_anything_is_sent(
    libc: str, words: str, tmp_path: Path
):
    from edgekit.core.errors import MissingError
    from edgekit.devices.profiles import profile_of
    from edgekit.jobs.boards import _pip

    machine = {"python": "3.11.2", "libc": libc, "arch": "aarch64"}
    with pytest.raises(MissingError, match=words):
        _pip(profile_of("raspberry-pi-5"), machine, "openvino", tmp_path, offline=tmp_path)
