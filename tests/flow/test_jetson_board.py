"""A compile measured on a board with TensorRT, over a real sshd.

The board's driver and TensorRT are stand-ins (tests/fake_board): engines are their ONNX files, run by onnxruntime.
Host, connection, agent, engine cache, builds in children, contests, accuracy, receipts and gates are real.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.board.hold import holder
from tests.conftest import ROOT, Ran, run_edgekit
from tests.sshd import WHY_NOT, Sshd

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


class Board:
    """One board behind sshd, and an engineer's folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sshd = Sshd(root / "sshd")
        self.cache = root / "cache"
        python = root / "python"
        self.words = root / "words"
        self.words.write_text("")
        python.write_text(
            f"#!/bin/sh\n. {self.words}\nexport EDGEKIT_CACHE={self.cache} PYTHONPATH={ROOT}/tests/fake_board\n"
            f'exec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        (root / "config").mkdir()
        (root / "config" / "devices.yaml").write_text(
            f"gate-orin: {{extends: jetson-orin, arch: {platform.machine()}, ssh: board0, root: {root}/home,"
            f" lock: {root}/lock, python: {python}, match: {{always: true}}}}\n"
        )

    def run(self, *words: object) -> Ran:
        env = {"EDGEKIT_SSH_CONFIG": str(self.sshd.config), "EDGEKIT_CONFIG": str(self.root / "config")}
        return run_edgekit(*words, env=env)

    def compile(self, recipe: Path, out: Path, *words: str) -> Ran:
        return self.run("compile", recipe, "--device", "gate-orin", "--quick", "-o", out, "--json", *words)

    def does(self, what: str) -> None:
        """Let the board's TensorRT do something wrong, see recording.py."""
        # A worker that lingers has the words of before.
        for _ in range(600):
            if all(holder(p) is None for p in (self.root / "home").glob("**/worker.lock")):
                break
            time.sleep(0.1)
        self.words.write_text(f"export FAKE_TRT_DO={what}\n")


@pytest.fixture
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    made = Board(tmp_path_factory.mktemp("board"))
    yield made
    made.sshd.stop()


def report(ran: Ran) -> dict[str, Any]:
    assert ran.out, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_engines_are_built_measured_and_judged_on_the_board(board: Board, recipe: Path, tmp_path: Path):
    ran = board.compile(recipe, tmp_path)
    assert ran.code == 0, ran.err
    told = report(ran)
    assert told["measured_on"]["engines"]["tensorrt"] == "10.3.0"
    by_name = {v["name"]: v for v in told["variants"]}
    assert {"tensorrt-fp32", "tensorrt-fp16", "tensorrt-int8"} <= set(by_name)
    for name in ("tensorrt-fp16", "tensorrt-int8"):
        assert by_name[name]["checks"][0]["name"] == "engine", "the build is told"
    built = json.loads(board.run("engine", "list", "--device", "gate-orin", "--json").out)
    assert sorted(e["precision"] for e in built) == ["fp16", "fp32", "int8"]
    again = board.compile(recipe, tmp_path)
    assert report(again)["when"] == told["when"], "kept steps and kept engines"


@pytest.fixture
def strict(recipe: Path, tmp_path: Path) -> Path:
    """A recipe that wants TensorRT and most of the time in int8."""
    path = tmp_path / "strict.yaml"
    text = recipe.read_text().replace("size_mb: 5", "size_mb: 5, precision_share: 0.9")
    path.write_text(f"{text}devices: {{gate-orin: {{backend: tensorrt}}}}\n")
    return path


def test_an_engine_passes_with_its_receipt_and_every_rung_of_the_ladder(
    board: Board, strict: Path, tmp_path: Path
):
    ran = board.compile(strict, tmp_path, "--precision", "int8")
    told = report(ran)
    assert told["variants"][0]["name"] == "tensorrt-int8"
    assert told["variants"][0]["share"] == 1.0
    assert [r["name"] for r in told["ladder"]][-2:] == ["engine", "runtime"]
    assert ran.code == 0, ran.err


def test_a_build_that_fell_back_to_float32_in_silence_fails_the_gate_of_precision(
    board: Board, strict: Path, tmp_path: Path
):
    board.does("float")
    ran = board.compile(strict, tmp_path, "--precision", "int8", "--no-cache")
    (gate,) = (v for v in report(ran)["verdicts"] if v["gate"] == "precision_share")
    assert gate["state"] == "fail"
    assert ran.code == 4


def test_an_int8_that_cannot_be_built_is_told_and_another_is_chosen(
    board: Board, recipe: Path, tmp_path: Path
):
    board.does("refuse-int8")
    ran = board.compile(recipe, tmp_path)
    told = report(ran)
    (int8,) = (v for v in told["variants"] if v["name"] == "tensorrt-int8")
    assert "Could not find any implementation" in int8["note"]
    assert told["chosen"] != "tensorrt-int8"
    assert ran.code == 0, ran.err
    strict = tmp_path / "strict.yaml"
    strict.write_text(f"{recipe.read_text()}devices: {{gate-orin: {{backend: tensorrt}}}}\n")
    alone = board.compile(strict, tmp_path / "strict", "--precision", "int8")
    assert alone.code == 4
    assert "Could not find any implementation" in alone.err, "TensorRT's own words, not a guess"


def test_another_release_than_the_boards_is_refused_before_anything_slow(
    board: Board, recipe: Path, tmp_path: Path
):
    ran = board.compile(recipe, tmp_path, "--jetpack", "7.2")
    assert ran.code == 2
    assert "has TensorRT 10.3.0, asked for was 10.16.2" in ran.err
    assert not os.listdir(tmp_path)


def test_a_new_engine_is_tried_on_the_golden_frames_before_it_is_kept(
    board: Board, strict: Path, tmp_path: Path
):
    bundle = report(board.compile(strict, tmp_path, "--precision", "int8", "--no-cache"))["bundle"]
    # The compile's own engine was measured, and nobody tried it on golden frames yet.
    kept = json.loads(board.run("engine", "build", bundle, "--device", "gate-orin", "--json").out)
    assert not kept["fresh"]
    metas = [json.loads(p.read_text()) for p in board.cache.glob("engines/*/meta.json")]
    assert {m["precision"]: m["tested"] for m in metas} == {"int8": True, "fp32": False}
    assert board.run("engine", "clear", "--device", "gate-orin").code == 0
    built = board.run("engine", "build", bundle, "--device", "gate-orin", "--json")
    assert built.code == 0, built.err
    assert json.loads(built.out)["fresh"]
    assert board.run("engine", "clear", "--device", "gate-orin").code == 0
    board.does("wrong")
    refused = board.run("engine", "build", bundle, "--device", "gate-orin")
    assert refused.code == 4
    assert refused.err.count("self-test: 100% of the boxes on the golden frames have no partner") == 2
    assert json.loads(board.run("engine", "list", "--device", "gate-orin", "--json").out) == []


def test_on_the_board_itself_nothing_is_sent_anywhere(recipe: Path, tmp_path: Path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "devices.yaml").write_text(
        f"this-orin: {{extends: jetson-orin, arch: {platform.machine()}, match: {{always: true}}}}\n"
    )
    env = {
        "EDGEKIT_CONFIG": str(tmp_path / "config"), "EDGEKIT_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": f"{ROOT}/tests/fake_board",
    }  # fmt: skip
    words = ("--device", "this-orin", "--quick", "--precision", "fp16", "-o", tmp_path / "out", "--json")
    ran = run_edgekit("compile", recipe, *words, env=env)
    told = report(ran)
    assert ran.code == 0, ran.err
    assert told["measured_on"]["engines"]["tensorrt"] == "10.3.0"
    assert {v["name"] for v in told["variants"]} >= {"tensorrt-fp32", "tensorrt-fp16"}
    listed = json.loads(run_edgekit("engine", "list", "--json", env=env).out)
    assert sorted(e["precision"] for e in listed) == ["fp16", "fp32"]
