"""The shipped detector, its recipe, and the ways torch models come in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgekit
from tests.conftest import on_openvino, run_edgekit, shortened

pytestmark = pytest.mark.slow


def test_a_shipped_detector_keeps_its_accuracy_in_int8_and_is_faster(tmp_path: Path):
    # The engine that wins here, alone: onnxruntime's runs of the same weights take as long again.
    recipe = on_openvino("hierlight-yolo-n-mini", tmp_path)
    ran = run_edgekit(
        "compile", recipe, "--device", "local", "--quick", "-o", tmp_path, "--json", timeout=900
    )
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    chosen = report["variants"][0]
    assert report["verdict"] == "pass"
    assert chosen["precision"] in {"int8", "bf16"}
    accuracy = chosen["accuracy"]
    assert 0.40 <= accuracy["value"] + accuracy["drop"] <= 0.95
    assert accuracy["drop"] <= 0.01
    assert set(accuracy["by_size"]) == {"under 8", "8-16", "16-32", "over 32"}
    assert report["speedup"][0] > 1.2
    with edgekit.load(report["bundle"]) as model:
        assert model.contract.answers.layout == "yolov8-logits"
        assert len(model.contract.answers.levels) == 4


def test_for_another_device_latency_is_not_measured_and_accuracy_is_where_the_engine_runs_here(
    tmp_path: Path,
):
    recipe = shortened("ms-yolo-mini", tmp_path, samples=32, limit=40)
    ran = run_edgekit(
        "compile", recipe, "--device", "raspberry-pi-5", "--quick", "-o", tmp_path, "--json", timeout=900
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    states = {v["gate"]: v["state"] for v in found["verdicts"]}
    assert states["latency_p90_ms"] == "not measured"
    assert states["accuracy_drop"] == "pass", "the same engine runs here"
    assert found["variants"][0]["predicted"]["low_ms"] > 0
    assert found["measured_on"] == {}
    manifest = json.loads((Path(found["bundle"]) / "manifest.json").read_text())
    assert len(manifest["contract"]["answers"]["levels"]) == 3


def test_int8_for_a_board_with_tensorrt_keeps_the_decoder_out_of_the_network(tmp_path: Path):
    recipe = tmp_path / "orin.yaml"
    recipe.write_text(
        "schema: edgekit/recipe/v1\nmodel: {name: ms-yolo-thermal}\ndata: {allow_random: true, samples: 8}\n"
        "passes: [simplify, quantize-int8]\nexport: {imgsz: 640}\n"
    )
    ran = run_edgekit(
        "compile", recipe, "--device", "jetson-orin", "--precision", "int8", "--quick", "-o", tmp_path, "--json",
        timeout=900,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    outputs = [o.split()[0] for o in json.loads(ran.out)["model"]["outputs"]]
    assert outputs == ["boxes", "scores"]


def random_yolo11n(path: Path, names: dict[int, str]) -> None:
    """Write an ultralytics checkpoint with random weights that answers everywhere."""
    from edgekit.core.lazy import need

    ultralytics, torch = need("ultralytics"), need("torch")
    tasks = need("ultralytics.nn.tasks")
    torch.manual_seed(0)
    model = ultralytics.YOLO("yolo11n.yaml", task="detect")
    model.model = tasks.DetectionModel("yolo11n.yaml", nc=len(names), verbose=False)
    model.model.names = names
    for branch in model.model.model[-1].cv3:
        torch.nn.init.zeros_(branch[-1].bias)
    model.ckpt = {"model": model.model}
    model.save(str(path))


def test_a_torch_function_and_a_classifier_come_in(tmp_path: Path):
    code = "import torch\n\ndef build():\n    torch.manual_seed(1)\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(1), torch.nn.LazyLinear(5))\n"
    code = code.replace("return ", "m = ").rstrip() + "\n    m(torch.zeros(1, 3, 64, 64))\n    return m\n"
    (tmp_path / "mymodel.py").write_text(code)
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        "schema: edgekit/recipe/v1\nmodel: {function: 'mymodel:build', trust: true}\nexport: {imgsz: 64}\nbench: {mode: smoke}\n"
    )
    ran = run_edgekit("compile", recipe, "-o", tmp_path, "--json", env={"PYTHONPATH": str(tmp_path)})
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["model"]["export_parity"] < 1e-4
    with edgekit.load(tmp_path / "own-local" / "bundle") as model:
        assert model.run({"images": np.zeros((1, 3, 64, 64), np.float32)})["output0"].shape == (1, 5)
    untrusted = tmp_path / "no.yaml"
    untrusted.write_text(recipe.read_text().replace("true", "false"))
    refused = run_edgekit("compile", untrusted, "-o", tmp_path)
    assert refused.code == 2
    assert "trust: true" in refused.err


def test_a_timm_classifier_with_random_weights_compiles_without_data(tmp_path: Path):
    from edgekit.core.lazy import need

    timm, torch = need("timm"), need("torch")
    torch.manual_seed(0)
    net = timm.create_model("mobilenetv3_small_050", pretrained=False).eval()
    path = tmp_path / "mobile.onnx"
    torch.onnx.export(net, (torch.zeros(1, 3, 224, 224),), str(path), dynamo=False, opset_version=17)
    ran = run_edgekit("compile", path, "-o", tmp_path, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert any("not judged" in n for n in report["notes"])
    assert report["variants"][0]["latencies"][0]["runs"] >= 64
    given = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    with edgekit.load(tmp_path / "mobile-local" / "bundle") as model, torch.no_grad():
        name = model.contract.inputs[0].name
        got = next(iter(model.run({name: given}).values()))
        wanted = net(torch.from_numpy(given)).numpy()
    assert np.abs(got - wanted).max() <= 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("name", "params", "gflops"), [("yolov8n", 3_157_200, 8.9), ("yolo11n", 2_624_080, 6.6)]
)
def test_models_are_counted_as_ultralytics_publishes_them(name: str, params: int, gflops: float):
    ran = run_edgekit("models", "show", name, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["params_unfused"] == params
    assert found["gflops_unfused"] == pytest.approx(gflops, abs=0.15)
    assert found["params_fused"] < found["params_unfused"]


@pytest.mark.parametrize("name", ["uav-yolov8n", "hierlight-yolo-n-uav", "ms-yolo-thermal"])
def test_the_safetensors_and_the_onnx_of_a_shipped_model_are_the_same_net(name: str):
    import onnxruntime
    import torch

    from edgekit.core.places import shipped
    from edgekit.graph.half import restore_half
    from edgekit.graph.onnx_file import read_onnx
    from edgekit.graph.static import fix_shapes
    from edgekit.models.find import find_by_name
    from edgekit.models.torch_models import build, for_export
    from edgekit.models.weights import read_header

    folder = shipped("models")
    weights = folder / f"{name}.safetensors"
    module = for_export(build(find_by_name(read_header(weights).architecture, weights=weights)).module)
    model = fix_shapes(restore_half(read_onnx(folder / f"{name}.onnx")), imgsz=320, where="x")
    given = np.random.default_rng(0).random((1, 3, 320, 320), np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(given)).numpy()
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": given})[0]
    # The ONNX folds BatchNorm before it rounds to fp16, the safetensors after.
    assert np.abs(got - wanted).max() <= 5e-3 * np.abs(wanted).max()
