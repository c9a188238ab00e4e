"""The light side alone: what it loads, what it leaves behind, and that it gives the host's boxes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
from tests.conftest import ROOT, run_edgekit

HEAVY = "torch torchvision ultralytics timm pydantic yaml onnx nncf click rich cv2 openvino".split()


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel, numpy and onnxruntime, and nothing else."""
    root = tmp_path_factory.mktemp("light")
    wheel = os.environ.get("EDGEKIT_WHEEL")
    if not wheel:
        words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(root), str(ROOT)]
        subprocess.run(words, check=True, capture_output=True)
        wheel = str(next(root.glob("*.whl")))
    subprocess.run([sys.executable, "-m", "venv", str(root / "venv")], check=True)
    python = root / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), wheel, "onnxruntime"],
        check=True,
        capture_output=True,
    )
    return python


@pytest.mark.slow
def test_an_app_with_numpy_and_onnxruntime_gets_the_hosts_boxes(
    light: Path, compiled: Path, squares: Path, tmp_path: Path
):
    frame = cv2.imread(str(squares.parent / "images" / "val" / "001.png"))
    frame = cv2.resize(frame, (150, 110), interpolation=cv2.INTER_LINEAR)
    np.save(tmp_path / "frame.npy", frame)
    with edgekit.load(compiled / "bundle", variant="onnxruntime-fp32") as model:
        wanted = model(frame)
    code = f"""
import json, sys, numpy as np
import edgekit.runtime
with edgekit.runtime.load({str(compiled / "bundle")!r}) as model:
    found = model(np.load({str(tmp_path / "frame.npy")!r}))
    print(json.dumps({{"variant": model.variant.name, "boxes": found.boxes.tolist(), "scores": found.scores.tolist(),
                      "heavy": [m for m in {HEAVY!r} if m in sys.modules]}}))
"""
    done = subprocess.run([light, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["heavy"] == []
    assert found["variant"] == "onnxruntime-fp32"
    assert len(wanted) > 0
    # numpy's letterbox may differ from cv2's by one grey level of 255.
    np.testing.assert_allclose(found["boxes"], wanted.boxes, atol=0.5)
    np.testing.assert_allclose(found["scores"], wanted.scores, atol=0.01)


@pytest.mark.slow
def test_a_jpeg_without_a_decoder_names_the_extra(light: Path, compiled: Path, tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((64, 64, 3), np.uint8))
    script = light.with_name("edgekit")
    done = subprocess.run(
        [script, "run", str(compiled / "bundle"), str(tmp_path / "a.jpg"), "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7
    assert "edgekit[vision]" in done.stderr
    verified = subprocess.run(
        [script, "bundle", "inspect", str(compiled / "bundle")], capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stderr


@pytest.mark.slow
def test_an_empty_home_without_a_network_holds_only_edgekits_folders_afterwards(recipe: Path, tmp_path: Path):
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("a network namespace needs root and unshare")
    home = tmp_path / "home"
    home.mkdir()
    gone = {
        "CI",
        "EDGEKIT_CACHE",
        "EDGEKIT_CONFIG",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "ORT_DISABLE_TELEMETRY",
    }
    env = {k: v for k, v in os.environ.items() if k not in gone} | {
        "HOME": str(home),
        "TMPDIR": str(tmp_path),
    }
    edgekit_ = [sys.executable, "-c", "from edgekit.cli import main; main()"]
    image = recipe.parent / "x.png"
    cv2.imwrite(str(image), np.zeros((64, 64, 3), np.uint8))
    out = tmp_path / "out"
    for words in (
        ["compile", str(recipe), "-o", str(out)],
        ["run", str(out / "squares-local" / "bundle"), str(image), "--json"],
    ):
        done = subprocess.run(
            ["unshare", "-n", *edgekit_, *words], env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    left = sorted(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file())
    assert left
    assert all(p.startswith(".cache/edgekit/") for p in left), left


def test_help_starts_without_anything_heavy():
    ran = run_edgekit("--help")
    assert ran.code == 0
    code = f"import sys; sys.argv = ['edgekit', '--help']\ntry:\n    from edgekit.cli import main; main()\nexcept SystemExit: pass\nprint([m for m in {[h for h in HEAVY if h != 'click']!r} + ['numpy', 'onnxruntime'] if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
