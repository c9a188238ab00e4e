"""Small real things that tests share: a detector that works, its data, a classifier, a compiled bundle."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# Tests import onnxruntime themselves, and 1.32 would leave a device id in the home folder.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from edgekit.measure.steady import PATIENCE
from tests.tiny import write_classifier, write_data, write_detector

ROOT = Path(__file__).resolve().parent.parent

# These are about torch modules from their first line; [train] starts at Python 3.11.
_WITH_TORCH = (
    "flow/test_train.py", "flow/test_gamma.py", "flow/test_gamma_learning.py", "flow/test_growing_learning.py", "flow/test_pictures.py", "flow/test_pictures_elsewhere.py", "flow/test_pictures_refused.py", "unit/test_curve.py", "unit/test_host_decode.py", "unit/test_light_detectors.py", "unit/test_schedules.py", "unit/test_slide.py", "unit/test_slimming.py",
    "unit/test_growing.py", "unit/test_layout.py", "unit/test_staged.py", "unit/test_stream.py", "unit/test_training_data.py",
)  # fmt: skip
collect_ignore = [] if sys.version_info >= (3, 11) else list(_WITH_TORCH)


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a command gave."""

    code: int
    out: str
    err: str


def run_edgekit(
    *words: object, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: int = 600
) -> Ran:
    """Run `edgekit` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "from edgekit.cli import main; main()", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=timeout,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory):
    """Keep every test's cache, configuration and results out of the home folder."""
    root = tmp_path_factory.mktemp("home")
    names = ("EDGEKIT_CACHE", "EDGEKIT_CONFIG", "EDGEKIT_RESULTS")
    before = {k: os.environ.get(k) for k in (*names, PATIENCE)}
    # No test hangs on a machine's rest, and one that others use may never come to it.
    os.environ[PATIENCE] = "0.5"
    for name in names:
        os.environ[name] = str(root / name.rpartition("_")[2].lower())
    yield
    for key, value in before.items():
        os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX detector, 64 px, that finds white and red squares."""
    return write_detector(tmp_path_factory.mktemp("detector") / "squares.onnx")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX classifier with random weights and no metadata."""
    return write_classifier(tmp_path_factory.mktemp("classifier") / "blobs.onnx")


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `data.yaml` of images with white and red squares."""
    return write_data(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory, detector: Path, squares: Path) -> Path:
    """A recipe for the detector with its data and every kind of gate but latency."""
    path = tmp_path_factory.mktemp("recipe") / "squares.yaml"
    path.write_text(
        f"""schema: edgekit/recipe/v1
model: {{path: {detector}}}
data: {{path: {squares}, samples: 32}}
passes:
  - simplify
  - quantize-int8: {{max_drop: 0.02}}
gates: {{accuracy_drop: 0.02, size_mb: 5}}
bench: {{mode: smoke}}
"""
    )
    return path


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    """The output folder of the recipe compiled for this machine."""
    out = tmp_path_factory.mktemp("compiled")
    ran = run_edgekit("compile", recipe, "--device", "local", "-o", out)
    assert ran.code == 0, ran.err
    return out / "squares-local"


@pytest.fixture
def bundle(tmp_path: Path, compiled: Path) -> Path:
    """A copy of the compiled bundle that a test may damage."""
    import shutil

    return Path(shutil.copytree(compiled / "bundle", tmp_path / "bundle"))


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(0)


def on_openvino(name: str, folder: Path) -> Path:
    """Write a shipped recipe that tries OpenVINO alone on this machine."""
    path = shortened(name, folder, samples=32, limit=40)
    path.write_text(path.read_text().replace("\ndevices:", "\ndevices:\n  local: {backend: openvino}\n#", 1))
    return path


def shortened(name: str, folder: Path, *, samples: int, limit: int) -> Path:
    """Write a shipped recipe with fewer images and no guard: what it shows does not hang on the last thousandth."""
    text = (ROOT / "recipes" / f"{name}.yaml").read_text()
    text = text.replace("  samples: 256\n", f"  samples: {samples}\n  limit: {limit}\n", 1)
    path = folder / f"{name}.yaml"
    path.write_text(text.replace("quantize-int8: {max_drop: 0.01}", "quantize-int8"))
    return path
