"""Boards over a real sshd: benches, and everything that goes wrong in the field."""

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Ran, run_edgekit
from tests.sshd import WHY_NOT, Sshd, write_devices

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

SHORT = ("--mode", "smoke", "--runs", "64", "--seconds", "1", "--span", "model")
LONG = ("--mode", "smoke", "--seconds", "18", "--span", "model")


class Lab:
    """A server, boards behind it, and the folders of one engineer."""

    def __init__(
        self, root: Path, names: tuple[str, ...] = ("board0", "board1"), environment: str = ""
    ) -> None:
        self.root = root
        self.sshd = Sshd(root / "sshd", environment=environment)
        self.boards = {n: root / "boards" / n for n in names}
        self.config = root / "config"
        write_devices(self.config, self.sshd, self.boards)
        self.results = root / "results"

    @property
    def env(self) -> dict[str, str]:
        """What an engineer's shell has."""
        return {
            "EDGEKIT_SSH_CONFIG": str(self.sshd.config), "EDGEKIT_CONFIG": str(self.config),
            "EDGEKIT_RESULTS": str(self.results),
        }  # fmt: skip

    def run(self, *words: object) -> Ran:
        """Run edgekit as this engineer."""
        return run_edgekit(*words, env=self.env)

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Start edgekit and go on."""
        return subprocess.Popen(
            [sys.executable, "-c", "from edgekit.cli import main; main()", *map(str, words)],
            env={**os.environ, **self.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def stored(self) -> list[dict]:
        """Return the stored results."""
        return [json.loads(p.read_text()) for p in sorted(self.results.glob("*.json"))]

    def workers(self, board: str) -> list[int]:
        """Return the processes of a board's agent."""
        found = subprocess.run(
            ["pgrep", "-f", f"worker {self.boards[board]} "], capture_output=True, text=True
        )
        return [int(p) for p in found.stdout.split()]


def until(found: Callable[[], object], *, limit_s: float = 60) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + limit_s
    while not found():
        assert time.monotonic() < ends, "did not happen"
        time.sleep(0.05)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    one = Lab(tmp_path)
    yield one
    one.sshd.stop()
    subprocess.run(["pkill", "-9", "-f", f"{tmp_path}/boards"], check=False)


def measuring(lab: Lab, board: str) -> bool:
    """Return whether a board says that it measures."""
    said = list((lab.boards[board] / "work").glob("*/progress.json")) if lab.boards[board].exists() else []
    try:
        return any("measuring" in p.read_text() for p in said)
    except FileNotFoundError:
        return False


def test_a_bench_on_a_board_is_stored_with_its_passport_and_nothing_is_sent_twice(lab: Lab, bundle: Path):
    first = lab.run("bench", bundle, "--device", "board0", *SHORT, "--json")
    assert first.code == 0, first.err
    result = json.loads(first.out)
    assert result["device"] == "board0"
    assert result["passport"]["arch"] == os.uname().machine
    assert result["subject"]["kind"] == "bundle"
    assert result["start"]["open_ms"] > 0
    assert result["spans"][0]["runs"] >= 64
    assert lab.stored() == [result]
    blobs = {p.name: p.stat().st_ino for p in (lab.boards["board0"] / "blobs").iterdir()}
    again = lab.run("bench", bundle, "--device", "board0", *SHORT)
    assert again.code == 0, again.err
    assert {p.name: p.stat().st_ino for p in (lab.boards["board0"] / "blobs").iterdir()} == blobs
    assert "uploading" not in again.err
    assert "installing" not in again.err
    # Nothing of finished orders stays on the board.
    for folder in ("orders", "results", "work"):
        assert not list((lab.boards["board0"] / folder).iterdir())


def test_an_upload_that_is_cut_goes_on_where_it_stopped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for key, value in lab.env.items():
        monkeypatch.setenv(key, value)
    from edgekit.core.digest import digest_file
    from edgekit.devices.agents import Agent, Place
    from edgekit.devices.ssh import Ssh

    large = tmp_path / "large"
    large.write_bytes(os.urandom(1 << 20) * 300)
    sha256, root = digest_file(large), lab.boards["board0"]
    agent = Agent("board0", Ssh("board0"), Place(root=str(root), python=sys.executable, lock=f"{root}.lock"))
    agent.hello()
    offsets: list[int] = []
    send = Agent._send
    monkeypatch.setattr(
        Agent, "_send", lambda self, p, s, have: (offsets.append(have), send(self, p, s, have))
    )

    def cut() -> None:
        part = root / "blobs" / f"{sha256}.part"
        until(lambda: part.exists() and part.stat().st_size > 20_000_000)
        lab.sshd.stop()
        time.sleep(0.5)
        lab.sshd.start()

    thread = threading.Thread(target=cut)
    thread.start()
    agent.upload({sha256: large})
    thread.join()
    assert offsets[0] == 0
    assert offsets[-1] > 20_000_000, "the second part began anew"
    assert digest_file(root / "blobs" / sha256) == sha256
    assert not list((root / "blobs").glob("*.part"))


def test_a_run_whose_line_is_cut_goes_on_and_is_collected_later_once(lab: Lab, bundle: Path):
    running = lab.start("bench", bundle, "--device", "board0", *LONG)
    until(lambda: measuring(lab, "board0"))
    lab.sshd.stop()
    _, err = running.communicate(timeout=120)
    assert running.returncode == 5, err
    assert "goes on there" in err
    assert lab.stored() == []
    assert "pending" in lab.run("results", "list").err
    lab.sshd.start()
    until(lambda: not lab.workers("board0"))
    collected = lab.run("results", "collect", "--json")
    assert collected.code == 0, collected.err
    assert len(json.loads(collected.out)["collected"]) == 1
    assert len(lab.stored()) == 1
    assert json.loads(lab.run("results", "collect", "--json").out) == {"collected": [], "waiting": []}
    assert len(lab.stored()) == 1


def test_a_changed_host_key_is_refused_and_nothing_is_sent(lab: Lab, bundle: Path):
    lab.sshd.know("other")
    ran = lab.run("bench", bundle, "--device", "board0", *SHORT)
    assert ran.code == 5
    assert "host key is not the known one" in ran.err
    assert "ssh-keygen -R" in ran.err
    assert not lab.boards["board0"].exists()


def test_a_login_that_is_refused_and_a_board_that_is_off_say_so(lab: Lab, bundle: Path):
    (lab.sshd.folder / "authorized").write_text("")
    ran = lab.run("bench", bundle, "--device", "board0", *SHORT)
    assert ran.code == 5
    assert "refuses the login" in ran.err
    lab.sshd.stop()
    ran = lab.run("bench", bundle, "--device", "board0", *SHORT)
    assert ran.code == 5
    assert "nothing listens there" in ran.err


def test_a_full_disk_is_said_before_anything_is_sent(lab: Lab, bundle: Path):
    root = lab.boards["board0"]
    root.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", root], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounts are refused here: {mounted.stderr.strip()}")
    try:
        ran = lab.run("bench", bundle, "--device", "board0", *SHORT)
        assert ran.code == 8, ran.err
        assert "MB free" in ran.err
        assert not list((root / "blobs").iterdir())
        (root / "filler").write_bytes(b"x" * 19_900_000)
        shutil.rmtree(root / "blobs")
        next(root.glob("agent-*")).unlink()
        ran = lab.run("bench", bundle, "--device", "board0", *SHORT)
        assert ran.code == 8, ran.err
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_an_agent_that_is_killed_begins_its_order_again_and_gives_one_result(lab: Lab, bundle: Path):
    running = lab.start("bench", bundle, "--device", "board0", *LONG)
    until(lambda: measuring(lab, "board0"))
    for pid in lab.workers("board0"):
        os.kill(pid, signal.SIGKILL)
    _, err = running.communicate(timeout=180)
    assert running.returncode == 0, err
    (result,) = lab.stored()
    assert any("begun 2 times" in n for n in result["notes"])


def test_after_a_restart_of_the_board_its_lock_is_free_and_the_old_order_is_done(lab: Lab, bundle: Path):
    running = lab.start("bench", bundle, "--device", "board0", *LONG)
    until(lambda: measuring(lab, "board0"))
    lab.sshd.stop()
    for pid in lab.workers("board0"):
        os.kill(pid, signal.SIGKILL)
    running.communicate(timeout=120)
    assert running.returncode == 5
    lock = Path(f"{lab.boards['board0']}.lock")
    assert "who" in lock.read_text(), "the holder's name should still stand in the lock"
    lab.sshd.start()
    ran = lab.run("bench", bundle, "--device", "board0", *SHORT, "--wait")
    assert ran.code == 0, ran.err
    assert lab.run("results", "collect").code == 0
    assert len(lab.stored()) == 2


def test_a_second_engineer_is_told_who_has_the_board_and_may_wait(lab: Lab, bundle: Path):
    first = lab.start(
        "bench", bundle, "--device", "board0", "--mode", "smoke", "--seconds", "30", "--span", "model"
    )
    until(lambda: measuring(lab, "board0"))
    second = lab.run("bench", bundle, "--device", "board0", *SHORT)
    assert second.code == 8, second.err
    assert "the board is taken by" in second.err
    assert "@" in second.err
    assert " s" in second.err
    third = lab.run("bench", bundle, "--device", "board0", *SHORT, "--wait")
    assert third.code == 0, third.err
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert len(lab.stored()) == 2
    assert "pending" not in lab.run("results", "list").err


def test_a_stuck_holder_is_ended_by_unlock(lab: Lab, bundle: Path):
    first = lab.start(
        "bench", bundle, "--device", "board0", "--mode", "smoke", "--seconds", "90", "--span", "model"
    )
    until(lambda: measuring(lab, "board0"))
    freed = lab.run("devices", "unlock", "board0")
    assert freed.code == 0, freed.err
    assert "was held by" in freed.out
    _, err = first.communicate(timeout=120)
    assert first.returncode == 8, err
    assert "ended by unlock" in err


def test_a_board_with_a_wrong_clock_measures_and_is_told_so(tmp_path: Path, bundle: Path):
    shifted = tmp_path / "shifted"
    shifted.mkdir()
    (shifted / "sitecustomize.py").write_text(
        "import time\n_gm, _t = time.gmtime, time.time\n"
        "time.time = lambda: _t() - 9e7\ntime.gmtime = lambda s=None: _gm(_t() - 9e7 if s is None else s)\n"
    )
    lab = Lab(tmp_path, environment=f"PYTHONPATH={shifted}")
    try:
        ran = lab.run("bench", bundle, "--device", "board0", *SHORT, "--json")
        assert ran.code == 0, ran.err
        result = json.loads(ran.out)
        assert any("clock is -9" in n for n in result["notes"])
        asked = dt.datetime.strptime(result["when"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.timezone.utc)
        assert abs((asked - dt.datetime.now(dt.timezone.utc)).total_seconds()) < 3600
    finally:
        lab.sshd.stop()


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("#!/bin/sh\nhead -c 300 /dev/urandom\n", 5, "no edgekit agent"),
        ("#!/bin/sh\nyes edgekit-reply\n", 5, "without end"),
        ("#!/bin/sh\necho True 3.11.2; echo 'edgekit-reply [1]'\n", 5, "no edgekit agent"),
        ("#!/bin/sh\necho False 3.7.3\n", 7, "is 3.7.3"),
        ("#!/bin/sh\nexit 127\n", 7, "no "),
    ],
)
def test_a_device_that_answers_garbage_is_named(
    lab: Lab, bundle: Path, tmp_path: Path, script: str, code: int, words: str
):
    fake = tmp_path / "python"
    fake.write_text(script)
    fake.chmod(0o755)
    text = (lab.config / "devices.yaml").read_text().replace(sys.executable, str(fake))
    (lab.config / "devices.yaml").write_text(text)
    ran = lab.run("bench", bundle, "--device", "board0", *SHORT)
    assert ran.code == code, ran.err
    assert words in ran.err
    assert "Traceback" not in ran.err


def test_many_boards_at_once_each_give_a_result_or_a_coded_reason(tmp_path: Path, bundle: Path):
    lab = Lab(tmp_path, names=("board0", "board1", "board2"))
    try:
        shutil.rmtree(lab.boards["board1"], ignore_errors=True)
        lab.boards["board1"].parent.mkdir(parents=True, exist_ok=True)
        lab.boards["board1"].write_text("a file where the agent's folder should be")
        ran = lab.run("bench", bundle, "--devices", "tag:lab", *SHORT, "--json")
        states = {r["device"]: (r["state"], r["reason"][:1]) for r in json.loads(ran.out)}
        assert states == {
            "board0": ("complete", []), "board1": ("failed", ["ResourceError"]), "board2": ("complete", []),
        }  # fmt: skip
        assert ran.code == 8
        assert len(lab.stored()) == 3
    finally:
        lab.sshd.stop()


def test_the_agent_is_small_on_disk_and_in_memory(lab: Lab):
    from edgekit.devices.agents import agent_file

    path = agent_file()
    assert path.stat().st_size < 20e6
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{path}', 'hello', '{lab.boards['board0']}']\n"
        f"runpy.run_path('{path}', run_name='__main__')\n"
        f"sys.path.insert(0, '{path}')\n"
        "import edgekit.board.work\n"
        "print(next(x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM')))\n"
    )
    out = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert float(out.splitlines()[-1]) / 1024 < 60, "MB resident before a model is loaded"


def test_a_board_without_engines_is_provisioned_from_a_wheelhouse_and_then_measures(
    lab: Lab, detector: Path, tmp_path: Path
):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    devices = lab.config / "devices.yaml"
    devices.write_text(devices.read_text().replace(sys.executable, str(tmp_path / "bare" / "bin" / "python")))
    ran = lab.run("bench", detector, "--device", "board0", *SHORT)
    assert ran.code == 7, ran.err
    assert "has no numpy" in ran.err
    assert "edgekit devices provision board0 --engine onnxruntime" in ran.err
    sick = lab.run("devices", "doctor", "board0")
    assert sick.code == 7
    assert "provision board0 --engine onnxruntime" in sick.out
    assert "no numpy" in sick.out
    house = tmp_path / "wheels"
    filled = lab.run("devices", "provision", "board0", "--wheelhouse", house, "--fill")
    assert filled.code == 0, filled.err
    assert any(p.name.startswith("onnxruntime-") for p in house.glob("*.whl"))
    # Nothing but the wheelhouse is used from here on: an index that does not exist would fail.
    offline = {**lab.env, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    done = run_edgekit("devices", "provision", "board0", "--wheelhouse", house, env=offline)
    assert done.code == 0, done.err
    assert lab.run("devices", "doctor", "board0").code == 0
    ran = lab.run("bench", detector, "--device", "board0", *SHORT, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["passport"]["engines"]["onnxruntime"]
    missing = run_edgekit(
        "devices", "provision", "board0", "--wheelhouse", house, "--engine", "openvino", env=offline
    )
    assert missing.code == 7
    assert "no openvino in" in missing.err
    assert "Try onnxruntime instead" in missing.err


def test_a_board_is_added_by_a_look_at_it(lab: Lab):
    (lab.config / "devices.yaml").unlink()
    python = sys.executable
    ran = lab.run(
        "devices",
        "add",
        "door-cam",
        "--ssh",
        "board0",
        "--tag",
        "lab",
        "--python",
        python,
        "--root",
        lab.boards["board0"],
    )
    assert ran.code == 0, ran.err
    assert "x86-cpu" in ran.out
    shown = json.loads(lab.run("devices", "show", "door-cam", "--json").out)
    assert (shown["ssh"], shown["tags"], shown["python"]) == ("board0", ["lab"], python)
    assert json.loads(lab.run("devices", "probe", "tag:lab", "--json").out)[0]["arch"] == os.uname().machine
    again = lab.run("devices", "add", "door-cam", "--ssh", "board0")
    assert again.code == 2
    assert "is known already" in again.err
    # A board that does not answer is not written down.
    lab.sshd.stop()
    gone = lab.run("devices", "add", "attic", "--ssh", "board1")
    assert gone.code == 5
    assert "attic" not in (lab.config / "devices.yaml").read_text()
    blind = lab.run("devices", "add", "attic", "--ssh", "board1", "--no-probe", "--extends", "raspberry-pi-5")
    assert blind.code == 0, blind.err
    assert "board1" in json.loads(lab.run("devices", "show", "attic", "--json").out)["ssh"]
