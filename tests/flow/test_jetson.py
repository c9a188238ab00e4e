"""From a recipe to what each Jetson's TensorRT reads: dialects, checks and refusals, on a host without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit.core.digest import digest_bytes
from edgekit.graph.onnx_file import save_onnx
from tests.conftest import run_edgekit
from tests.trt_faults import FAULTS
from tests.unit.test_trt_lint import HAS_RTX

COMBINATIONS = [
    ("jetson-xavier-nx", ("--jetpack", "5.1"), "trt8"),
    ("jetson-orin", ("--jetpack", "6.0"), "trt8"),
    ("jetson-orin", ("--jetpack", "6.2"), "trt10-strong"),
    ("jetson-orin", ("--jetpack", "6.2", "--weak"), "trt10-weak"),
    ("jetson-orin-nano", ("--jetpack", "7.2"), "trt10-strong"),
    ("jetson-agx-thor", ("--jetpack", "7.1"), "trt10-strong"),
    ("jetson-agx-orin", ("--tensorrt", "11.4.1"), "trt11"),
    ("jetson-agx-orin", ("--jetpack", "6.2", "--dla", "0"), "dla-cal"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a step cache of this file's own: equal files are judged once."""
    return tmp_path_factory.mktemp("work")


def compiled_for(recipe: Path, out: Path, work: Path, device: str, *words: str) -> dict[str, Any]:
    ran = run_edgekit(
        "compile", recipe, "--device", device, *words, "--work-dir", work, "-o", out, "--quick", "--json"
    )
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.mark.parametrize(("device", "words", "dialect"), COMBINATIONS)
def test_a_recipe_is_written_in_the_dialect_of_each_board(
    recipe: Path, tmp_path: Path, work: Path, device: str, words: tuple[str, ...], dialect: str
):
    report = compiled_for(recipe, tmp_path, work, device, *words, "--precision", "int8")
    chosen = report["variants"][0]
    assert (chosen["backend"], chosen["precision"]) == ("tensorrt", "int8")
    assert chosen["accuracy"]["drop"] <= 0.01
    assert chosen["accuracy"]["simulated"], "no engine ran"
    assert chosen["parity"] <= 0.05
    folder = Path(report["bundle"]) / "variants" / chosen["name"]
    build = json.loads((folder / "build.json").read_text())
    assert build["target"]["dialect"] == dialect
    assert [b["model"] for b in build["builds"]] == ["model.onnx", "fp16.onnx"], "always an fp16 twin"
    assert (folder / "calib.cache").is_file() == (dialect == "dla-cal")
    assert {p.name for p in folder.iterdir()} >= {"build_engine.py", "model.onnx", "fp16.onnx"}
    states = {c["name"]: c["state"] for c in chosen["checks"]}
    assert states["lint model.onnx"] == states["lint fp16.onnx"] == "pass"
    wanted = "accepted" if HAS_RTX else "not checked"
    assert states["parse and build model.onnx"] == states["parse and build fp16.onnx"] == wanted
    assert any(dialect in n for n in report["notes"])


def test_combinations_that_do_not_exist_are_refused_before_anything_slow(recipe: Path, tmp_path: Path):
    for device, words, why in (
        ("jetson-orin-nano", ("--jetpack", "7.1"), "only on modules with Thor"),
        ("jetson-orin-nano", ("--dla", "0"), "has no DLA"),
        ("x86-cpu", ("--jetpack", "6.2"), "has no TensorRT"),
    ):
        ran = run_edgekit("compile", recipe, "--device", device, *words, "-o", tmp_path / "out")
        assert ran.code == 2, ran.err
        assert why in ran.err
        assert not (tmp_path / "out").exists()


def test_lint_names_node_rule_and_what_to_do_and_ends_with_4(tmp_path: Path):
    save_onnx(FAULTS["half-quantized"].make(), tmp_path / "bad.onnx")
    ran = run_edgekit("lint", tmp_path / "bad.onnx", "--device", "jetson-orin")
    assert ran.code == 4
    assert "half-quantized" in ran.out
    assert "conv" in ran.out
    assert "Quantize both, or neither." in ran.out
    told = run_edgekit("lint", tmp_path / "bad.onnx", "--device", "jetson-orin", "--json")
    found = json.loads(told.out)
    assert (found["errors"], found["target"]["dialect"]) == (1, "trt10-strong")


def test_lint_of_a_sound_file_is_quiet_and_of_none_says_so(detector: Path, tmp_path: Path):
    ran = run_edgekit("lint", detector, "--device", "jetson-xavier-nx", *(["--rtx"] if HAS_RTX else []))
    assert ran.code == 0
    assert "nothing found" in ran.out
    assert ("accepted" in ran.out) == HAS_RTX
    none = run_edgekit("lint", tmp_path / "none.onnx", "--device", "jetson-orin")
    assert none.code == 2
    assert "no such model" in none.err


def test_lint_shows_each_rule_a_few_times_and_counts_the_rest(tmp_path: Path):
    one = FAULTS["half-quantized"].make()
    again = onnx.ModelProto()
    again.CopyFrom(one)
    for k in range(9):
        node = again.graph.node.add()
        node.CopyFrom(one.graph.node[-1])
        node.name, node.output[0] = f"conv{k}", f"y{k}"
    save_onnx(again, tmp_path / "many.onnx")
    ran = run_edgekit("lint", tmp_path / "many.onnx", "--device", "jetson-orin")
    assert ran.code == 4
    assert "and 7 more" in ran.out


def test_an_app_gets_detections_from_an_engine_once_it_is_built(
    recipe: Path, tmp_path: Path, work: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
):
    """The board's driver and TensorRT are stand-ins in plain memory; bundle, cache, runtime and decoding are real."""
    import importlib
    import sys
    from dataclasses import asdict

    import edgekit
    from edgekit.backends import build_engine, engines
    from edgekit.backends import tensorrt as backend
    from edgekit.backends.cuda import Cuda
    from edgekit.core.files import write_json
    from edgekit.frames.images import read_image
    from tests.fake_cuda import Driver, tensorrt

    runtime = importlib.import_module("edgekit.runtime.load")
    bundle = Path(compiled_for(recipe, tmp_path, work, "jetson-orin", "--precision", "fp16")["bundle"])
    here = runtime.passport()
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "passport", lambda: {**here, "arch": "aarch64"})
    frame = read_image(squares.parent / "images" / "val" / "000.png")
    with edgekit.load(bundle) as model:
        expected = model(frame)
        assert model.variant.backend == "onnxruntime"
        assert "no NVIDIA driver" in model.why, "told, not silent"

    driver = Driver()
    module = tensorrt(driver)
    module.__version__ = "10.3.0.30"
    facts = {"gpu": "Orin", "compute_capability": "8.7", "sm": 16, "cuda": "12.6"}
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(build_engine, "probe", lambda: facts)
    monkeypatch.setattr(backend, "Cuda", lambda: Cuda(driver))
    with edgekit.load(bundle) as model:
        assert model.variant.backend == "onnxruntime"
        assert "edgekit engine build" in model.why
    folder = bundle / "variants" / "tensorrt-fp16"
    (entry,) = engines.builds_in(folder)
    place = engines.root() / engines.key_of(folder, entry, engines.probed())
    place.mkdir(parents=True)
    plan = (folder / "model.onnx").read_bytes()
    (place / engines.PLAN).write_bytes(plan)
    meta = {
        "bytes": len(plan),
        "sha256": digest_bytes(plan),
        "precision": "fp16",
        "attempts": [],
        "when": "",
        "board": asdict(engines.probed()),
    }
    write_json(place / engines.META, meta)
    with edgekit.load(bundle) as model:
        assert model.variant.name == "tensorrt-fp16"
        found = model(frame)
    assert sorted(found.classes.tolist()) == sorted(expected.classes.tolist())
    assert len(found.classes) > 0
    assert driver.calls.count("cuGraphLaunch") + len(driver.graphs) > 1


def test_what_pruning_loses_counts_against_the_network_before_it(recipe: Path, tmp_path: Path, work: Path):
    """The pruned float32 is no yardstick: the gate holds all that was lost."""
    own = tmp_path / "pruned.yaml"
    pruned = "  - simplify\n  - sparsify-2-4: {max_drop: 0.5, refit: false}"
    own.write_text(recipe.read_text().replace("  - simplify", pruned))
    words = (
        "--device",
        "jetson-orin",
        "--precision",
        "fp16",
        "--quick",
        "--work-dir",
        work,
        "-o",
        tmp_path,
        "--json",
    )
    ran = run_edgekit("compile", own, *words)
    told = json.loads(ran.out)
    by_name = {v["name"]: v for v in told["variants"]}
    assert told["passes"]["sparsify-2-4"]["sparse_layers"] > 0
    before = compiled_for(recipe, tmp_path / "dense", work, "jetson-orin", "--precision", "fp16")
    dense = next(v["accuracy"]["value"] for v in before["variants"] if v["name"] == "tensorrt-fp32")
    for name in ("tensorrt-fp16", "tensorrt-fp32"):
        accuracy = by_name[name]["accuracy"]
        assert accuracy["drop"] == pytest.approx(dense - accuracy["value"], abs=1e-6)
