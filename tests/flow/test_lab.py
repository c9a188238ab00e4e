"""Boards of the lab: real aarch64 userlands under emulation behind a real sshd and a link in user space."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Ran, run_edgekit
from tests.flow.test_boards import SHORT, until
from tests.tiny import write_hungry

sys.path.insert(0, str(ROOT / "scripts"))
import lab as labs

WHY_NOT = labs.why_not()
if WHY_NOT and os.environ.get("EDGEKIT_LAB_REQUIRED"):
    raise RuntimeError(f"the lab of ARM boards is required here and {WHY_NOT}")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=f"the lab of ARM boards {WHY_NOT}")]


class Arm:
    """One emulated board and an engineer's folders."""

    def __init__(self, board: labs.Board, folder: Path) -> None:
        self.board = board
        self.env = {
            "EDGEKIT_SSH_CONFIG": str(board.folder / "ssh_config"), "EDGEKIT_CONFIG": str(folder / "config"),
            "EDGEKIT_RESULTS": str(folder / "results"),
        }  # fmt: skip
        (folder / "config").mkdir()
        self.results = folder / "results"
        (folder / "config" / "devices.yaml").write_text(
            f"{board.name}: {{extends: raspberry-pi-5, ssh: {board.name}, tags: [lab]}}\n"
        )

    def run(self, *words: object) -> Ran:
        """Run edgekit as this engineer."""
        return run_edgekit(*words, env=self.env, timeout=900)

    def ssh(self, command: str) -> str:
        """Return what a command says on the board."""
        words = ["ssh", "-F", self.env["EDGEKIT_SSH_CONFIG"], self.board.name, command]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def pi5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    """A Raspberry Pi 5, as far as software can tell, for all tests of this file."""
    labs.build()
    board = labs.Board("pi5", 1)
    board.up(cpu="cortex-a76", memory="1G", disk="256m", model="Raspberry Pi 5 Model B Rev 1.0")
    try:
        yield Arm(board, tmp_path_factory.mktemp("pi5"))
    finally:
        board.down()
        assert "ek-pi5" not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def shipped(pi5: Arm, tmp_path_factory: pytest.TempPathFactory, detector: Path, squares: Path) -> Path:
    """The squares detector, compiled for the board: measured there, judged there."""
    folder = tmp_path_factory.mktemp("arm")
    recipe = folder / "squares.yaml"
    recipe.write_text(
        f"""schema: edgekit/recipe/v1
model: {{path: {detector}}}
data: {{path: {squares}, samples: 32}}
passes:
  - simplify
  - quantize-int8: {{max_drop: 0.02}}
gates: {{accuracy_drop: 0.02, latency_p90_ms: 1000, size_mb: 5}}
bench: {{mode: smoke}}
devices:
  pi5: {{backend: onnxruntime}}
"""
    )
    ran = pi5.run("compile", recipe, "--device", "pi5", "-o", folder)
    assert ran.code == 0, ran.err
    return folder / "squares-pi5"


def test_a_compile_measures_and_judges_on_the_arm_board_and_claims_nothing(shipped: Path):
    report = json.loads((shipped / "report.json").read_text())
    machine = report["measured_on"]
    assert machine["arch"] == "aarch64"
    assert machine["emulated"] == "qemu-aarch64"
    assert machine["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    gates = {v["gate"]: v for v in report["verdicts"]}
    assert gates["accuracy_drop"]["state"] == "pass"
    assert "pi5" in gates["accuracy_drop"]["detail"]
    assert gates["latency_p90_ms"]["state"] == "not judged"
    assert "emulated" in gates["latency_p90_ms"]["detail"]
    assert report["variants"][0]["latencies"][0]["runs"] >= 64
    rungs = {r["name"]: r for r in report["ladder"]}
    assert rungs["board"]["where"] == "pi5"
    assert rungs["board"]["error"] <= rungs["board"]["limit"]
    assert rungs["runtime"]["error"] == 0
    page = (shipped / "report.html").read_text()
    assert "EMULATED" in page
    assert "Parity ladder" in page


def test_uname_and_python_of_the_board_are_arm_and_so_is_the_stored_result(pi5: Arm, shipped: Path):
    assert pi5.ssh("uname -m") == "aarch64"
    ran = pi5.run("bench", shipped / "bundle", "--device", "pi5", *SHORT, "--json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert result["passport"]["arch"] == "aarch64"
    assert result["emulated"] == "qemu-aarch64"
    assert any("say nothing about a board" in n for n in result["notes"])
    assert result["telemetry"]["columns"]["temperature cpu-thermal"][0] == 48.8
    assert "EMULATED" in pi5.run("results", "show", result["id"]).out
    page = pi5.results.parent / "page.html"
    assert pi5.run("results", "plot", "-o", page).code == 0
    assert "Not ranked" in page.read_text()


def test_int8_of_onnxruntime_on_arm_equals_x86_bit_for_bit(
    pi5: Arm, detector: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for key, value in pi5.env.items():
        monkeypatch.setenv(key, value)
    import numpy as np

    from edgekit.core.digest import digest_bytes
    from edgekit.core.plugins import pick
    from edgekit.core.wire import artifact_from
    from edgekit.devices.profiles import profile_of, profiles
    from edgekit.jobs.remote import reached
    from edgekit.measure.inputs import Inputs

    profiles.cache_clear()
    recipe = tmp_path / "int8.yaml"
    recipe.write_text(
        f"schema: edgekit/recipe/v1\nmodel: {{path: {detector}}}\ndata: {{path: {squares}, samples: 32}}\n"
        "passes: [simplify, {quantize-int8: {max_drop: 0.02}}]\n"
        "devices: {local: {backend: onnxruntime, precision: int8}}\n"
    )
    ran = run_edgekit("compile", recipe, "--device", "local", "--quick", "-o", tmp_path)
    assert ran.code == 0, ran.err
    bundle = next(tmp_path.glob("*-local")) / "bundle"
    manifest = json.loads((bundle / "manifest.json").read_text())
    remote = reached(profile_of("pi5"))
    assert remote
    variant = next(
        v for v in manifest["variants"] if v["backend"] == "onnxruntime" and v["precision"] == "int8"
    )
    artifact = artifact_from({
        "backend": "onnxruntime", "precision": "int8", "main": str(bundle / variant["main"]), "wanted": {},
        "contract": manifest["contract"], "options": variant["options"],
    })  # fmt: skip
    drawn = Inputs(artifact.contract, sorted((bundle / "golden").glob("frame*.npy")), seed=0)
    digests = []
    with pick("backends", "onnxruntime", what="backend").open(artifact) as session:
        for k in range(2):
            given = drawn.draw()
            found = session.infer(given)
            np.savez(tmp_path / f"inputs{k}.npz", **given)
            np.savez(tmp_path / f"expected{k}.npz", **found)
            digests.append(digest_bytes(b"".join(found[n].tobytes() for n in sorted(found))))
    files = {f"golden/{p.name}": p for p in sorted(tmp_path.glob("*.npz"))}
    there = remote._done("parity", {"main": artifact}, (), {}, more=files)
    assert there["digests"] == digests
    assert there["errors"] == [0.0, 0.0]


def test_a_slow_and_lossy_link_only_takes_longer(pi5: Arm, shipped: Path):
    pi5.board.link({"delay_s": 0.08, "jitter_s": 0.01, "loss": 0.03, "rate_bit_s": 2_000_000})
    try:
        ran = pi5.run("bench", shipped / "bundle", "--device", "pi5", *SHORT, "--json")
    finally:
        pi5.board.link({})
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["state"] == "complete"


def test_a_cut_of_the_link_in_an_upload_is_noticed_and_resumed(
    pi5: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for key, value in pi5.env.items():
        monkeypatch.setenv(key, value)
    from edgekit.core.digest import digest_file
    from edgekit.devices.agents import Agent, Place
    from edgekit.devices.ssh import Ssh

    large = tmp_path / "large"
    large.write_bytes(os.urandom(1 << 20) * 24)
    sha256 = digest_file(large)
    agent = Agent("pi5", Ssh("pi5"), Place())
    agent.hello()
    pi5.board.link({"rate_bit_s": 40_000_000})
    offsets: list[int] = []
    send = Agent._send
    monkeypatch.setattr(
        Agent, "_send", lambda self, p, s, have: (offsets.append(have), send(self, p, s, have))
    )
    part = pi5.board.root / "home/edge/.cache/edgekit-agent/blobs" / f"{sha256}.part"

    def cut() -> None:
        until(lambda: part.exists() and part.stat().st_size > 4_000_000)
        pi5.board.link({"up": 0})
        time.sleep(11)
        pi5.board.link({})

    thread = threading.Thread(target=cut)
    thread.start()
    agent.upload({sha256: large})
    thread.join()
    assert len(offsets) > 1
    assert offsets[-1] > 4_000_000
    whole = part.with_suffix("")
    assert digest_file(whole) == sha256
    whole.unlink()


def test_a_board_without_memory_says_so_and_not_that_the_line_was_lost(pi5: Arm, tmp_path: Path):
    names = ("memory.limit_in_bytes", "memory.max")
    limit = next(pi5.board.group / n for n in names if (pi5.board.group / n).exists())
    before = limit.read_text()
    # The run asks for three times what there is at once; what else the board does has room, so that it
    # answers. A limit near what onnxruntime itself needs made the board read its own files again and again.
    hungry = write_hungry(tmp_path / "hungry.onnx", megabytes=750)
    limit.write_text("250M")
    try:
        ran = pi5.run("bench", hungry, "--device", "pi5", *SHORT)
    finally:
        limit.write_text(before)
    assert ran.code == 8, ran.err
    assert "memory" in ran.err


def test_a_board_that_restarts_in_a_run_gives_its_result_in_the_end(pi5: Arm, shipped: Path):
    words = [
        sys.executable,
        "-c",
        "from edgekit.cli import main; main()",
        "bench",
        str(shipped / "bundle"),
        "--device",
        "pi5",
        *SHORT,
    ]
    running = subprocess.Popen(
        words, env={**os.environ, **pi5.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    work = pi5.board.root / "home/edge/.cache/edgekit-agent/work"
    until(lambda: any("warming" in p.read_text() for p in work.glob("*/progress.json")), limit_s=120)
    pi5.board.reboot()
    _, err = running.communicate(timeout=240)
    assert running.returncode == 0, err
    newest = max(pi5.results.glob("*.json"), key=lambda p: p.stat().st_mtime)
    assert any(re.search(r"begun \d times", n) for n in json.loads(newest.read_text())["notes"])


def test_doctor_names_what_the_board_has(pi5: Arm):
    ran = pi5.run("devices", "doctor", "pi5", "--json")
    assert ran.code == 0, ran.err
    (found,) = json.loads(ran.out)
    engines = {e["engine"]: e["works"] for e in found["engines"]}
    assert engines["onnxruntime"]
    assert found["passport"]["libc"] == "glibc 2.36"
