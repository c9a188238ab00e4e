"""The guide's commands, run in order as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT, run_edgekit
from tests.flow.test_shipped import random_yolo11n

pytestmark = pytest.mark.slow
NAMES = {0: "walker", 1: "moped", 2: "saloon", 3: "lorry", 4: "coach"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return language and text of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_guide_leads_from_a_checkpoint_to_boxes(tmp_path: Path):
    made = run_edgekit(
        "data", "make", "uav-mini", "--train", 72, "--val", 8, "--size", 320, "-o", tmp_path / "set"
    )
    assert made.code == 0, made.err
    names = "".join(f"  {k}: {n}\n" for k, n in NAMES.items())
    (tmp_path / "data.yaml").write_text(f"path: set\ntrain: images/train\nval: images/val\nnames:\n{names}")
    random_yolo11n(tmp_path / "best.pt", NAMES)
    cv2.imwrite(
        str(tmp_path / "frame.jpg"), np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    )
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "edgekit"
    script.write_text(f"#!{sys.executable}\nfrom edgekit.cli import main\nmain()\n")
    script.chmod(0o755)
    env = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}"}
    ran = 0
    for kind, text in blocks(ROOT / "docs" / "guide.md"):
        if kind == "sh":
            wanted = 3 if "# exits 3" in text else 0
            done = subprocess.run(
                ["bash", "-ec", text], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900
            )
            # A run that this machine made unstable is not judged, and then nothing failed.
            lenient = wanted == 3 and "not judged" in done.stdout
            assert done.returncode == wanted or (lenient and done.returncode == 0), (
                f"{text}\n{done.stdout}\n{done.stderr}"
            )
            if wanted == 3:
                assert "imgsz 320" in done.stdout
        elif kind == "python":
            done = subprocess.run(
                [sys.executable, "-c", text],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
            assert any(name in done.stdout for name in NAMES.values()), "no boxes with the data's class names"
        else:
            continue
        ran += 1
    assert ran >= 8
    shutil.rmtree(tmp_path / "out")
