"""gamma-quant from raw data to packed codes: trained, compiled, run, and refused where it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgekit import load
from edgekit.codecs.packing import unpack
from edgekit.codecs.sensor_table import table_of
from edgekit.core.errors import RecipeError
from edgekit.data.make import make_set
from edgekit.frames.raw import read_signal
from tests.conftest import ROOT, run_edgekit

pytestmark = pytest.mark.slow


def recipe_of(
    folder: Path, name: str, where: Path, curve: dict[str, Any] | None, **parts: dict[str, Any]
) -> Path:
    """Write a shipped recipe on a small set, measured shortly, with another gamma-quant and other words in its parts."""
    told: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text())
    told["data"]["path"], told["bench"] = str(where), {"mode": "smoke"}
    if "weights" in told["model"]:
        told["model"]["weights"] = str(ROOT / "recipes" / told["model"]["weights"])
    steps = [p for p in told["passes"] if not (isinstance(p, dict) and "gamma-quant" in p)]
    told["passes"] = [*([{"gamma-quant": curve}] if curve is not None else []), *steps]
    for key, words in parts.items():
        told[key] = {**told.get(key, {}), **words} if words else {}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({k: v for k, v in told.items() if v}))
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set("digits-dark", tmp_path_factory.mktemp("set") / "digits", train=1297, val=200)


@pytest.fixture(scope="module")
def compiled_digits(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("digits")
    recipe = recipe_of(folder, "gamma-quant-digits", digits, {"bits": 4})
    ran = run_edgekit("compile", recipe, "--device", "local", "-o", folder / "out", "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    return report, Path(report["bundle"])


def test_digits_keep_their_accuracy_behind_four_learned_bits(compiled_digits: tuple[dict[str, Any], Path]):
    report, _ = compiled_digits
    chosen = report["variants"][0]
    assert chosen["accuracy"]["metric"] == "top1"
    assert chosen["accuracy"]["value"] > 0.93
    gates = {v["gate"]: v["state"] for v in report["verdicts"]}
    assert gates == {"accuracy_drop": "pass", "bytes_per_frame": "pass"}
    link = report["link"]
    assert (link["bytes_per_frame"], link["sensor_bytes_per_frame"]) == (32, 96)
    assert link["numpy_ms"] > 0
    assert len(link["history"]) == 12
    assert link["history"][0]["gamma"] != link["history"][-1]["gamma"]
    # The rung between the network as it was trained and the one that takes packed codes.
    rungs = {r["name"]: r["error"] for r in report["ladder"]}
    assert rungs["ONNX after passes"] < 1e-4


def test_an_app_gives_raw_frames_or_packed_codes(compiled_digits: tuple[dict[str, Any], Path], digits: Path):
    _, bundle = compiled_digits
    files = sorted((digits.parent / "signals" / "val").rglob("*.npy"))[:40]
    with load(bundle) as model:
        assert model.contract.inputs[0].dtype == "uint8"
        right = 0
        for file in files:
            raw = read_signal(file)
            codes = model.encode(raw)
            assert codes.nbytes == 32
            one, two = model(raw), model(codes)
            assert one.plain() == two.plain()
            right += one.plain()[0]["name"] == file.parent.name
        assert right >= 0.85 * len(files)
        with pytest.raises(RecipeError, match="12-bit"):
            model(np.full((8, 8), 60000, np.uint16))
        with pytest.raises(RecipeError, match="raw"):
            model(np.zeros((8, 8, 3), np.uint8))


def test_the_bundles_device_half_encodes_without_edgekits_settings(
    compiled_digits: tuple[dict[str, Any], Path], digits: Path
):
    """Someone who has the files alone comes to the same bytes."""
    _, bundle = compiled_digits
    device, server = bundle / "codec/device", bundle / "codec/server"
    lut = np.fromfile(device / "sensor_lut.bin", np.uint8)
    lists = json.loads((device / "thresholds.json").read_text())
    assert np.array_equal(np.searchsorted(lists["thresholds"][0], np.arange(4096), side="right"), lut)
    raw = read_signal(sorted((digits.parent / "signals" / "val").rglob("*.npy"))[3])
    codes = lut[raw]
    packed = codes[:, ::2] | codes[:, 1::2] << 4
    with load(bundle) as model:
        assert np.array_equal(model.encode(raw)[0, 0], packed)
        said = model.contract.frames.coding.settings
    decode = json.loads((server / "decode.json").read_text())
    assert np.array_equal(unpack(packed, decode["bits"], decode["width"]), codes)
    table = table_of(said)
    assert (decode["scale"], decode["offset"]) == (table.scale, table.offset)
    manifest = json.loads((bundle / "manifest.json").read_text())
    facts = manifest["provenance"]["passes"]["gamma-quant"]
    wanted = {
        "sensor_bits", "bits", "signed", "channels", "gamma", "gain", "mu", "black", "white", "pack_order", "width",
        "table_sha256", "value_scale",
    }  # fmt: skip
    assert wanted <= facts.keys()
    assert {f["path"] for f in manifest["files"]} >= {
        f"codec/device/{n}" for n in ("sensor_lut.bin", "encoder.h")
    }


def test_another_command_runs_raw_files_of_a_folder(
    compiled_digits: tuple[dict[str, Any], Path], digits: Path
):
    _, bundle = compiled_digits
    ran = run_edgekit("run", bundle, digits.parent / "signals" / "val" / "7", "--json")
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)["answers"]
    assert sum(r["answers"][0]["name"] == "7" for r in rows) >= 0.8 * len(rows)


def test_a_detector_learns_and_runs_behind_a_raw_sensor(tmp_path: Path):
    data = make_set("uav-dark", tmp_path / "dark", train=64, val=16, size=320)
    recipe = recipe_of(
        tmp_path, "gamma-quant-raw-detect", data, {"bits": 4, "per": "channel"},
        train={"epochs": 1, "batch": 8, "imgsz": 160}, export={"imgsz": 160}, data={"samples": 32},
        gates={"accuracy_drop": 0.2, "bytes_per_frame": 51200, "precision_share": 0.1},
        devices={"local": {"backend": "onnxruntime", "precision": "int8"}},
    )  # fmt: skip
    ran = run_edgekit("compile", recipe, "--device", "local", "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["link"]["bytes_per_frame"] == 4 * 160 * (160 // 2)
    assert report["variants"][0]["precision"] == "int8"
    assert report["variants"][0]["accuracy"]["value"] > 0.2
    with load(report["bundle"]) as model:
        raw = read_signal(min((data.parent / "images" / "val").iterdir()))
        found = model(raw)
        assert found.plain() == model(model.encode(raw)).plain()
        # Boxes are in pixels of the sensor, whose mosaic is twice the planes.
        assert len(found) == 0 or found.boxes.max() > 160
    ran = run_edgekit("bench", report["bundle"], "--data", data, "--mode", "smoke", "--json")
    assert ran.code == 0, ran.err


def test_what_it_is_compared_with_is_one_setting_apart(digits: Path, tmp_path: Path):
    recipe = recipe_of(
        tmp_path,
        "gamma-quant-digits",
        digits,
        {"curve": "none"},
        train={"epochs": 1},
        gates={"bytes_per_frame": 95},
    )
    ran = run_edgekit(
        "compile", recipe, "--device", "local", "--precision", "fp32", "-o", tmp_path / "out", "--json"
    )
    # All twelve bits are more than the gate allows.
    assert ran.code == 3, ran.err
    link = json.loads(ran.out)["link"]
    assert (link["curve"], link["bytes_per_frame"], link["gamma"]) == ("none", 96, [])


def test_trained_weights_carry_their_curve(digits: Path, tmp_path: Path):
    recipe = recipe_of(tmp_path, "gamma-quant-digits", digits, {"bits": 2}, train={"epochs": 1})
    ran = run_edgekit("train", recipe, "-o", tmp_path / "trained")
    assert ran.code == 0, ran.err
    (weights,) = (tmp_path / "trained").glob("*.safetensors")
    told = {"train": {}, "model": {"weights": str(weights)}}
    recipe = recipe_of(tmp_path, "gamma-quant-digits", digits, {"bits": 2}, **told)
    ran = run_edgekit(
        "compile", recipe, "--device", "local", "--precision", "fp32", "-o", tmp_path / "out", "--json"
    )
    assert ran.code in {0, 3}, ran.err
    assert json.loads(ran.out)["link"]["bits"] == 2
    recipe = recipe_of(tmp_path, "gamma-quant-digits", digits, {"bits": 4}, **told)
    ran = run_edgekit("compile", recipe, "--device", "local", "-o", tmp_path / "other")
    assert ran.code == 2
    assert "bits 2 instead of 4" in ran.err
    recipe = recipe_of(tmp_path, "gamma-quant-digits", digits, None, **told)
    ran = run_edgekit("compile", recipe, "--device", "local", "-o", tmp_path / "other")
    assert ran.code == 2
    assert "were trained behind a sensor's curve" in ran.err


def spoiled(digits: Path, folder: Path, **keys: str) -> Path:
    """Copy the digits with another sensor part, or other values."""
    place = folder / "set"
    shutil.copytree(digits.parent, place)
    path = place / "data.yaml"
    head = path.read_text().split("sensor:")[0]
    path.write_text(head + (f"sensor: {{{keys['sensor']}}}\n" if keys.get("sensor") else ""))
    for file in (place / "signals").rglob("*.npy") if "values" in keys else ():
        np.save(file, np.full((8, 8), int(keys["values"]), np.uint16))
    return path


@pytest.mark.parametrize(
    ("keys", "settings", "word"),
    [
        ({"sensor": "bits: 8"}, {"bits": 4}, "8-bit sensor"),
        ({"sensor": "bits: 24"}, {"bits": 4}, "2 to 16"),
        ({"sensor": "bits: 12, black: 900, white: 300"}, {"bits": 4}, "black 900 and white 300"),
        ({"sensor": "bits: 12, mosaic: RGGX"}, {"bits": 4}, "mosaic"),
        ({"sensor": "bits: 12", "values": "300"}, {"bits": 4}, "constant"),
        ({}, {"bits": 4}, "no sensor's raw values"),
        ({}, None, "takes a sensor's values"),
        (
            {"sensor": "bits: 12, axes: [a, b, c, d, e, f, g, h]"},
            {"bits": 4},
            "takes images, the data is time series",
        ),
        ({"sensor": "bits: 12, white: 20"}, {"bits": 4}, "saturated"),
        ({"sensor": "bits: 12"}, None, "Add gamma-quant"),
        ({"sensor": "bits: 12"}, {"bits": 4, "per": "axis"}, "per: axis"),
        ({"sensor": "bits: 12"}, {"bits": 9}, "1 to 8"),
        ({"sensor": "bits: 12"}, {"curve": "gama"}, "curve"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    keys: dict[str, str], settings: dict[str, Any] | None, word: str, digits: Path, tmp_path: Path
):
    recipe = recipe_of(tmp_path, "gamma-quant-digits", spoiled(digits, tmp_path, **keys), settings)
    ran = run_edgekit("compile", recipe, "--device", "local", "-o", tmp_path / "out")
    assert ran.code == 2, ran.err
    assert word in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("manifest.json"))


def test_a_recipe_that_contradicts_itself_is_refused_before_any_work(digits: Path, tmp_path: Path):
    recipe = recipe_of(tmp_path, "gamma-quant-digits", digits, {"bits": 4}, preprocess={"resize": "stretch"})
    told = json.loads(recipe.read_text())
    told["passes"] = [*told["passes"][1:], told["passes"][0]]
    recipe.write_text(json.dumps(told))
    ran = run_edgekit("compile", recipe, "--device", "local", "-o", tmp_path / "out", "--dry-run")
    assert ran.code == 2
    assert "preprocess: says nothing behind gamma-quant" in ran.err
    assert "Put it before quantize-int8" in ran.err
