"""A board whose Python is too old, over a real sshd: its trtexec is a script that records what it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ran, run_edgekit
from tests.sshd import WHY_NOT, Sshd

pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

TRTEXEC = """#!/bin/sh
echo "$@" >> "$HOME/calls"
do=$(cat "$HOME/do" 2>/dev/null)
for word in "$@"; do case $word in
  --saveEngine=*) plan=${word#*=} ;;
  --memPoolSize=workspace:*) room=${word##*:} ;;
esac; done
case $do in
  memory) [ "$room" -gt 300 ] && { echo "[E] Error[2]: OutOfMemory (no further information)"; exit 1; } ;;
  refuse) echo "[11/27/2026-12:00:00] [E] Error[10]: Could not find any implementation for node conv"; exit 1 ;;
  slow) sleep 4 ;;
esac
echo "engine" > "$plan"
"""


class OldBoard:
    """JetPack 5 as far as a shell can tell: Python 3.8, a trtexec, libnvinfer 8.5.2 as a package."""

    def __init__(self, folder: Path) -> None:
        self.home, bin_ = folder / "home", folder / "bin"
        self.home.mkdir()
        bin_.mkdir()
        scripts = {
            "trtexec": TRTEXEC, "dpkg-query": '#!/bin/sh\nprintf "8.5.2-1+cuda11.4"\n',
            "python3": "#!/bin/sh\necho False 3.8.10\n",
        }  # fmt: skip
        for name, text in scripts.items():
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o755)
        # A login begins in the account's own home; the board's is elsewhere.
        there = f'ForceCommand cd {self.home} && sh -c "$SSH_ORIGINAL_COMMAND"'
        environment = f"PATH={bin_}:/usr/bin:/bin HOME={self.home}\n{there}"
        self.server = Sshd(folder / "sshd", environment=environment)
        self.env = {"EDGEKIT_SSH_CONFIG": str(self.server.config), "EDGEKIT_CONFIG": str(folder / "config")}
        (folder / "config").mkdir()
        (folder / "config" / "devices.yaml").write_text(
            "xavier: {extends: jetson-xavier-nx, ssh: board-xavier}\n"
        )

    def does(self, what: str) -> None:
        (self.home / "do").write_text(what)

    def calls(self) -> list[str]:
        return (self.home / "calls").read_text().splitlines()

    def build(self, bundle: Path, *words: str) -> Ran:
        return run_edgekit("engine", "build", bundle, "--device", "xavier", "--json", *words, env=self.env)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[OldBoard]:
    one = OldBoard(tmp_path)
    yield one
    one.server.stop()


@pytest.fixture(scope="module")
def bundle(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xavier")
    ran = run_edgekit(
        "compile",
        recipe,
        "--device",
        "jetson-xavier-nx",
        "--precision",
        "int8",
        "--quick",
        "-o",
        folder,
        "--json",
    )
    assert ran.code == 0, ran.err
    return Path(json.loads(ran.out)["bundle"])


def test_a_board_without_our_python_is_served_with_its_own_trtexec(board: OldBoard, bundle: Path):
    ran = board.build(bundle)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["precision"], found["tensorrt"], found["fresh"]) == ("int8", "8.5.2", True)
    assert "building with the board's own trtexec" in ran.err
    (call,) = board.calls()
    assert "--buildOnly --fp16 --int8" in call
    plan = board.home / found["plan"]
    assert plan.read_text() == "engine\n"
    assert (plan.parent / "model.onnx").read_bytes() == (
        bundle / "variants/tensorrt-int8/model.onnx"
    ).read_bytes()
    again = json.loads(board.build(bundle).out)
    assert (again["fresh"], again["plan"], len(board.calls())) == (False, found["plan"], 1)


def test_less_workspace_and_then_the_twin_and_every_attempt_is_told(board: OldBoard, bundle: Path):
    board.does("memory")
    found = json.loads(board.build(bundle).out)
    assert [a["outcome"] for a in found["attempts"]][-1] == "built"
    assert {a["outcome"] for a in found["attempts"][:-1]} == {"out of memory"}
    rooms = [a["workspace_mb"] for a in found["attempts"]]
    assert rooms == sorted(rooms, reverse=True)
    assert rooms[-1] <= 300
    subprocess.run(["rm", "-rf", board.home / ".cache"], check=True)
    board.does("refuse")
    ran = board.build(bundle)
    assert ran.code == 4
    error = json.loads(ran.out)["error"]["message"]
    assert "int8 with" in error
    assert "fp16 with" in error
    assert "Could not find any implementation for node conv" in error


def test_a_second_host_finds_the_build_that_is_running(board: OldBoard, bundle: Path):
    board.does("slow")
    words = [
        "-c",
        "from edgekit.cli import main; main()",
        "engine",
        "build",
        str(bundle),
        "--device",
        "xavier",
        "--json",
    ]
    env = {**os.environ, **board.env}
    both = [
        subprocess.Popen(
            [sys.executable, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said: list[Any] = [json.loads(one.communicate(timeout=120)[0]) for one in both]
    assert len(board.calls()) == 1, "one build serves both"
    assert said[0]["plan"] == said[1]["plan"]


def test_a_board_without_trtexec_says_what_to_install(board: OldBoard, bundle: Path):
    (board.home.parent / "bin" / "trtexec").unlink()
    ran = board.build(bundle)
    assert ran.code == 7
    assert "libnvinfer-bin" in ran.err
