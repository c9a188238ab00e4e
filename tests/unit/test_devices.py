"""Device profiles: what comes with edgekit, the user's own, and how a machine is recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.core.errors import RecipeError
from edgekit.devices import profiles as module
from edgekit.devices.profiles import profile_of, profiles
from edgekit.machine.probe import isa, passport, physical_cores
from edgekit.predict.rows import rows

pytestmark = pytest.mark.light

WANTED = """jetson-agx-orin jetson-orin-nx jetson-orin-nano jetson-orin-nano-super jetson-agx-thor jetson-xavier-nx
raspberry-pi-4 raspberry-pi-5 rk3588 imx8mp intel-n100 intel-core-ultra-155h intel-core-ultra-258v x86-cpu local"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes the user's own devices file."""
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path))
    profiles.cache_clear()
    yield (tmp_path / "devices.yaml").write_text
    profiles.cache_clear()


@pytest.mark.parametrize("name", WANTED.split())
def test_a_device_is_there_with_engines(name: str):
    profile = profile_of(name)
    assert profile.name == name
    assert profile.backends


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("jetson-orin", "jetson-agx-orin"), ("jetson-agx-orin-64gb", "jetson-agx-orin"),
        ("jetson-orin-nano-super-8gb", "jetson-orin-nano-super"), ("jetson-orin-nx-16gb", "jetson-orin-nx"),
        ("imx8m-plus", "imx8mp"), ("intel-core-ultra-7-258v", "intel-core-ultra-258v"),
    ],
)  # fmt: skip
def test_published_names_are_aliases(alias: str, name: str):
    assert profile_of(alias).name == name


def test_every_device_of_the_published_rows_is_known():
    for device in {r.device for r in rows()}:
        assert profile_of(device)


def test_every_fact_has_a_source_and_a_certainty():
    for profile in profiles().values():
        for fact in profile.facts:
            assert fact.source, (profile.name, fact.key)
            assert fact.certainty in {"A", "B", "C", "D"}


def test_units_without_a_backend_stand_there_with_the_reason():
    assert "no backend yet, figures are for the CPU" in profile_of("rk3588").others["NPU"]


def test_local_is_every_machine_and_a_jetson_only_itself():
    orin = {"arch": "aarch64", "board": "NVIDIA Jetson AGX Orin Developer Kit"}
    found = [p.name for p in profiles().values() if p.is_machine(orin)]
    assert found == ["jetson-agx-orin", "local"]
    assert profile_of("x86-cpu").is_machine({"arch": "x86_64"})
    assert not profile_of("x86-cpu").is_machine(orin)


def test_a_users_own_board_extends_a_profile(own):
    own("gate-3:\n  extends: jetson-orin-nano\n  title: Camera at gate 3\n  ssh: cam@gate3\n")
    profile = profile_of("gate-3")
    assert (profile.title, profile.own) == ("Camera at gate 3", True)
    assert profile.backends == profile_of("jetson-orin-nano").backends


def test_a_users_own_entry_stands_before_an_alias_and_may_extend_one(own):
    own("jetson-orin:\n  extends: jetson-orin\n  title: Mine\n")
    assert profile_of("jetson-orin").title == "Mine"
    assert profile_of("jetson-agx-orin").title != "Mine"


def test_faults_of_a_users_file_are_listed_with_their_lines(own):
    own("gate-3:\n  extends: jetson-orin-nan\ngate-4:\n  tilte: x\n")
    with pytest.raises(RecipeError) as caught:
        profiles()
    assert (
        "devices.yaml:2: gate-3.extends: no device 'jetson-orin-nan'. Did you mean 'jetson-orin-nano'?"
        in caught.value.message
    )
    assert "devices.yaml:4: gate-4.tilte: no such key. Did you mean 'title'?" in caught.value.message


def test_this_machines_passport_names_cpu_cores_and_engines():
    found = passport()
    assert found["cores_physical"] >= 1
    assert "onnxruntime" in found["engines"]
    assert found["memory_mb"] > 100


def test_flags_and_cores_are_read_from_the_kernels_files(tmp_path: Path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(
        "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0b\n"
    )
    assert isa(tmp_path) == ["asimd", "asimddp"]
    assert physical_cores(tmp_path) >= 1


def test_a_device_says_what_it_does_not_have():
    assert "has no 'openvino'" in module.refuse_backend(
        profile_of("jetson-orin"), "openvino", "", where="--backend"
    )
    assert module.refuse_backend(profile_of("jetson-orin"), "tensorrt", "int8", where="--backend") == ""
