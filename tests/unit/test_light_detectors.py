"""The light detectors: counts, wiring, gradients, operators, and what stays as it was in ultralytics."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.core.errors import RecipeError
from edgekit.models.architectures import architecture, write_architecture
from edgekit.models.blocks import IRB, IRDCB, UIB, LDown
from edgekit.models.find import find_by_name
from edgekit.models.layers import register
from edgekit.models.torch_models import build, for_export, fresh
from edgekit.models.weights import read_header


def made(name: str, nc: int = 10, **options):
    torch.manual_seed(0)
    return fresh(architecture(name, nc=nc, options=options))


def params(model) -> int:
    return sum(p.numel() for p in model.parameters())


def gflops(model) -> float:
    from ultralytics.utils.torch_utils import get_flops

    return get_flops(model, 640)


# Counted by the specification's authors with ultralytics' blocks; 2.2 / 7.8 / 17.9 M are the paper's.
HIERLIGHT = {
    "n": (2_220_040, 2_212_344, 2.2e6, 11.67, 11.47),
    "s": (7_771_864, 7_756_984, 7.8e6, 34.05, 33.68),
    "m": (17_961_512, 17_934_072, 17.9e6, 88.85, 88.17),
}


@pytest.mark.parametrize("scale", "nsm")
def test_hierlight_has_the_published_counts(scale: str):
    unfused, fused, published, flops, flops_fused = HIERLIGHT[scale]
    model = made(f"hierlight-yolo-{scale}").eval()
    assert params(model) == unfused
    assert gflops(model) == pytest.approx(flops, rel=0.002)
    folded = copy.deepcopy(model).fuse(verbose=False)
    assert params(folded) == fused
    assert gflops(folded) == pytest.approx(flops_fused, rel=0.002)
    assert abs(fused / published - 1) < 0.03
    plain = params(made(f"yolov8{scale}"))
    assert unfused < plain
    assert unfused < params(made(f"yolov8{scale}-p2"))
    assert {"n": 0.26, "s": 0.29, "m": 0.0}[scale] <= 1 - unfused / plain


@pytest.mark.parametrize(("nc", "expected"), [(1, 2_218_852), (80, 2_646_304)])
def test_hierlight_counts_for_other_numbers_of_classes(nc: int, expected: int):
    assert params(made("hierlight-yolo-n", nc)) == expected


# Fused, in millions, of the alternatives that were counted beside the default (N, S, M).
@pytest.mark.parametrize(
    ("widths", "wrapper", "expected"),
    [
        ([64, 128, 256, 512], "c2f", (2.205, 7.728, 17.869)),
        ([128, 256, 512, 1024], "c2f", (2.319, 8.183, 18.451)),
        ([128, 256, 512, 1024], "csp", (2.243, 7.880, 17.603)),
        ([128, 256, 512, 1024], "elan", (2.103, 7.318, 17.187)),
    ],
)
def test_lateral_widths_and_wrapper_give_the_counted_alternatives(widths, wrapper, expected):
    for scale, millions in zip("nsm", expected, strict=True):
        model = made(f"hierlight-yolo-{scale}", lateral_widths=widths, irdcb_wrapper=wrapper)
        assert params(model.eval().fuse(verbose=False)) == pytest.approx(millions * 1e6, rel=5e-4)


BASELINES = {
    ("yolov8n", 80, "dense"): (3_157_200, 3_151_904), ("yolov8n", 10, "dense"): (3_012_798, 3_007_598),
    ("yolov8s", 10, "dense"): (11_139_470, 11_129_454), ("yolov8m", 10, "dense"): (25_862_110, 25_845_550),
    ("yolov8n-p2", 10, "dense"): (2_927_880, 2_922_360), ("yolov8n", 9, "dense"): (3_012_603, 3_007_403),
    ("yolov8n", 9, "light"): (2_691_963, 2_686_123), ("yolov8n", 10, "light"): (2_692_158, 2_686_318),
}  # fmt: skip


@pytest.mark.parametrize("key", BASELINES)
def test_the_baselines_have_the_counted_parameters(key):
    name, nc, head = key
    model = made(name, nc, head=head)
    assert (params(model), params(model.eval().fuse(verbose=False))) == BASELINES[key]


def test_ms_yolo_has_the_counted_parameters_and_costs_less_than_its_baseline():
    model = made("ms-yolo", 9).eval()
    assert params(model.model[:17]) == 1_136_864
    assert params(model) == 2_626_443
    assert gflops(model) == pytest.approx(6.79, abs=0.05)
    assert abs(gflops(model) / 6.7 - 1) < 0.02
    assert gflops(model) < gflops(made("yolov8n", 9, head="light").eval())
    fused = copy.deepcopy(model).fuse(verbose=False)
    assert params(fused) == 2_612_491
    assert gflops(fused) == pytest.approx(6.62, abs=0.05)
    assert gflops(fused) < gflops(made("yolov8n", 9, head="light").eval().fuse(verbose=False))
    for nc, expected in ((12, 2_627_028), (15, 2_627_613), (80, 2_658_928)):
        assert params(made("ms-yolo", nc)) == expected
    dense = made("ms-yolo", 9, head="dense")
    assert (params(dense), params(dense.eval().fuse(verbose=False))) == (2_947_083, 2_933_771)
    # The authors' second configuration: attention after SPPF, SCDown and C2fCIB at the end.
    assert params(made("ms-yolo", 9, variant="psa_cib")) == 2_536_075


def test_every_uib_has_the_parameters_of_mobilenetv4():
    counted = [params(layer) for layer in made("ms-yolo", 9).model if isinstance(layer, UIB)]
    assert counted[:6] == [38208, 39552, 39552, 39552, 39552, 75744]
    assert counted[6:] == [137824, 149632, 146176, 109696, 137984, 137984]


def test_blocks_have_the_counted_parameters_and_shapes():
    assert params(IRDCB(256, 256, 1)) == 236_800
    assert params(LDown(128, 256)) == 34_688
    assert LDown(16, 32).eval()(torch.zeros(1, 16, 9, 7)).shape == (1, 32, 5, 4)


def test_an_irb_whose_last_batchnorm_is_zero_is_the_identity():
    block = IRB(16).eval()
    torch.nn.init.zeros_(block.compress.bn.weight)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), x)


def test_the_layers_of_hierlight_stand_where_the_layer_table_has_them():
    layers = made("hierlight-yolo-n").model
    kinds = [type(m).__name__ for m in layers]
    assert [k for k, v in enumerate(kinds) if v == "LDown"] == [7]
    assert [k for k, v in enumerate(kinds) if v == "IRDCB"] == [8, 25, 28, 31]
    assert layers[32].f == [22, 25, 28, 31]
    assert [(k, layers[k].f) for k in (24, 27, 30)] == [
        (24, [-1, 19, 11]), (27, [-1, 16, 12]), (30, [-1, 13, 9]),
    ]  # fmt: skip
    per_layer = {
        0: 464, 1: 4672, 2: 7360, 3: 18560, 4: 49664, 5: 73984, 6: 197632, 7: 34688, 8: 236800, 9: 164608,
        10: 1088, 11: 4224, 12: 8320, 13: 33024, 16: 123648, 19: 37248, 22: 9408, 23: 9280, 25: 22336,
        26: 36992, 28: 77440, 29: 147712, 31: 302336, 32: 618552,
    }  # fmt: skip
    assert {k: params(layers[k]) for k in per_layer} == per_layer


@pytest.mark.parametrize(
    ("name", "strides", "maps", "channels"),
    [
        ("hierlight-yolo-n", [4, 8, 16, 32], [160, 80, 40, 20], [32, 64, 128, 256]),
        ("ms-yolo", [8, 16, 32], [80, 40, 20], [64, 128, 256]),
    ],
)
def test_strides_maps_and_outputs(name: str, strides, maps, channels):
    nc = 9
    model = made(name, nc)
    assert model.stride.tolist() == strides
    anchors = sum(m * m for m in maps)
    model.train()
    raw = model(torch.zeros(1, 3, 640, 640))
    assert [tuple(f.shape[1:]) for f in raw["feats"]] == [
        (c, m, m) for c, m in zip(channels, maps, strict=True)
    ]
    assert raw["boxes"].shape == (1, 64, anchors)
    assert raw["scores"].shape == (1, nc, anchors)
    with torch.no_grad():
        answer = model.eval()(torch.rand(1, 3, 640, 640))[0]
        assert answer.shape == (1, 4 + nc, anchors)
        assert 0 < float(answer[:, 4:].min()) <= float(answer[:, 4:].max()) < 1
        wide = model(torch.zeros(1, 3, 512, 640))[0]
    assert wide.shape[2] == anchors * 512 // 640


def test_hierlight_anchors_are_34000():
    with torch.no_grad():
        assert made("hierlight-yolo-n").eval()(torch.zeros(1, 3, 640, 640))[0].shape == (1, 14, 34_000)


@pytest.mark.parametrize("name", ["hierlight-yolo-n", "ms-yolo"])
def test_every_trainable_parameter_gets_a_gradient(name: str):
    model = made(name, 9).train()
    raw = model(torch.rand(2, 3, 128, 128))
    (raw["boxes"].square().sum() + raw["scores"].square().sum()).backward()
    dead = [
        k for k, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert dead == []
    assert [k for k, p in model.named_parameters() if not p.requires_grad] == [
        f"model.{len(model.model) - 1}.dfl.conv.weight"
    ]


def test_activations_of_ms_yolo_are_relu6_in_the_backbone_and_silu_after_it():
    layers = made("ms-yolo", 9).model

    def kinds(part):
        return {type(m).__name__ for m in part.modules() if type(m).__name__ in {"ReLU6", "ReLU", "SiLU"}}

    assert kinds(layers[:17]) == {"ReLU6"}
    assert kinds(layers[17:]) == {"SiLU"}
    assert kinds(made("ms-yolo", 9, backbone_act="relu").model[:17]) == {"ReLU"}


def test_the_backbone_of_ms_yolo_gives_timms_intermediate_outputs_with_timms_weights(tmp_path: Path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    from edgekit.models.timm_weights import from_timm

    torch.manual_seed(1)
    theirs = timm.create_model("mobilenetv4_conv_small", pretrained=False).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    ours = made("ms-yolo", 9, backbone_act="relu")
    taken = from_timm(theirs.state_dict())
    missing = ours.load_state_dict(taken, strict=False)
    assert not missing.unexpected_keys
    assert not [k for k in missing.missing_keys if int(k.split(".")[1]) < 17]
    path = tmp_path / "timm.safetensors"
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, path)
    source = find_by_name("ms-yolo", weights=path, nc=9)
    assert source.settings["options"] == {"backbone_act": "relu"}
    loaded = build(source).module.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in taken.items())
    # BatchNorm's epsilon differs: 1e-3 in YOLO's blocks, 1e-5 in timm's.
    for module in ours.model[:17].modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-5
    x = torch.rand(1, 3, 128, 96)
    with torch.no_grad():
        found, y = {}, x
        for k, layer in enumerate(ours.eval().model[:17]):
            y = layer(y)
            found[k] = y
        z = theirs.bn1(theirs.conv_stem(x))
        expected = []
        for block in theirs.blocks[:4]:
            z = block(z)
            expected.append(z)
    for k, reference in zip((4, 10, 16), expected[1:], strict=True):
        assert torch.allclose(found[k], reference, atol=1e-5), f"layer {k}"


@pytest.mark.parametrize("name", ["hierlight-yolo-n", "hierlight-yolo-s", "ms-yolo"])
def test_the_export_holds_plain_operators_alone_and_agrees_with_torch(name: str):
    import onnxruntime as ort

    from edgekit.export.torch_onnx import to_onnx
    from edgekit.graph.static import slim

    nc, side = (9, 320) if name == "ms-yolo" else (10, 320)
    source = find_by_name(name, nc=nc)
    module = build(source).module
    x = torch.rand(1, 3, side, side)
    with torch.no_grad():
        unfused = module(x)[0]
        folded = for_export(module)
        expected = folded(x)
    assert float((unfused - expected).abs().max()) < 1e-3
    model = slim(to_onnx(folded, (1, 3, side, side), opset=17), where=name)
    counts = Counter(n.op_type for n in model.graph.node)
    allowed = {
        "Conv", "Sigmoid", "Mul", "Add", "Concat", "Split", "Slice", "MaxPool", "Resize", "Reshape", "Transpose",
        "Softmax", "Sub", "Div",
    }  # fmt: skip
    # One SiLU more than the specification counted: ultralytics 8.4's SPPF leaves out the one after its first
    # convolution, YOLOv8's has it (its own architecture file gets it back), and both papers build on YOLOv8.
    if name == "ms-yolo":
        assert (counts["Conv"], counts["Sigmoid"], counts["Clip"]) == (89, 38 + 1, 28)
        assert (counts["MaxPool"], counts["Resize"], counts["Softmax"], counts["MatMul"]) == (3, 2, 1, 0)
        allowed |= {"Clip"}
    else:
        assert (counts["Conv"], counts["Sigmoid"]) == (92, 79 + 1)
        assert (counts["MaxPool"], counts["Resize"], counts["Softmax"]) == (3, 3, 1)
    assert set(counts) <= allowed
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    assert np.abs(found[:, :4] - expected[:, :4].numpy()).max() < 1e-3
    assert np.abs(found[:, 4:] - expected[:, 4:].numpy()).max() < 1e-5


def test_registering_leaves_other_models_as_they_were():
    from ultralytics.nn import tasks
    from ultralytics.nn.modules import Conv, Detect

    register()
    register()
    before = tasks.DetectionModel("yolo11n.yaml", nc=5, verbose=False)
    kind = Detect.legacy
    made("yolov8n", 5, head="dense")
    made("ms-yolo", 5)
    assert Detect.legacy == kind
    after = tasks.DetectionModel("yolo11n.yaml", nc=5, verbose=False)
    assert [tuple(p.shape) for p in before.parameters()] == [tuple(p.shape) for p in after.parameters()]
    assert isinstance(Conv.default_act, torch.nn.SiLU)
    ours, theirs = made("yolov8n", 5), tasks.DetectionModel("yolov8n.yaml", nc=5, verbose=False)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x)[0], theirs.eval()(x)[0])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("hierlight-yolo-n", {"irdcb_wraper": "c2f"}, "irdcb_wrapper"),
        ("hierlight-yolo-n", {"irdcb_wrapper": "dense"}, "c2f or csp or elan"),
        ("hierlight-yolo-n", {"lateral_widths": [1, 2]}, "four widths"),
        ("ms-yolo", {"uib_residual": 3}, "bool"),
        ("yolov8n", {"variant": "psa_cib"}, "no such option"),
        ("yolo11n", {"head": "light"}, "has none"),
    ],
)
def test_wrong_options_are_refused_with_what_to_write(name: str, options: dict, words: str):
    with pytest.raises(RecipeError, match="model.options") as caught:
        find_by_name(name, nc=10, options=options)
    assert words in str(caught.value)


def test_weights_of_another_model_or_other_classes_are_refused(tmp_path: Path):
    from edgekit.jobs.train import packed

    record = {"architecture": "ms-yolo", "classes": ["a", "b"], "options": {"head": "light"}, "seed": 3}
    path = tmp_path / "w.safetensors"
    path.write_bytes(packed(made("ms-yolo", 2).state_dict(), record))
    header = read_header(path)
    assert (header.architecture, header.classes, header.options) == ("ms-yolo", ("a", "b"), {"head": "light"})
    assert header.record == {"seed": 3}
    found = find_by_name("ms-yolo", weights=path)
    assert found.settings["nc"] == 2
    assert build(found).declared.answers.classes == ("a", "b")
    with pytest.raises(RecipeError, match="holds weights of ms-yolo"):
        find_by_name("hierlight-yolo-n", weights=path)
    with pytest.raises(RecipeError, match="2 classes"):
        find_by_name("ms-yolo", weights=path, nc=5)
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(RecipeError, match="no safetensors file"):
        find_by_name("ms-yolo", weights=path)


# ultralytics' exporter traces with warnings that are torch's and its own.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["hierlight-yolo-n", "ms-yolo", "yolov8n-p2"])
def test_ultralytics_own_trainer_trains_validates_and_exports_it(
    name: str, tmp_path: Path, squares: Path, monkeypatch
):
    from edgekit.core.lazy import need

    ultralytics = need("ultralytics")
    register()
    monkeypatch.chdir(tmp_path)
    file = write_architecture(tmp_path / f"{name}.yaml", name, nc=2)
    assert json.loads(file.read_text())["builder"] == "edgekit"
    model = ultralytics.YOLO(str(file), task="detect")
    data = tmp_path / "data.yaml"
    lines = [line for line in squares.read_text().splitlines() if not line.startswith("path:")]
    data.write_text("\n".join([f"path: {squares.parent}", *lines]))
    common = {"data": str(data), "imgsz": 64, "device": "cpu", "verbose": False, "plots": False}
    model.train(epochs=1, batch=8, workers=0, project=str(tmp_path), name="run", **common)
    best = tmp_path / "run" / "weights" / "last.pt"
    again = ultralytics.YOLO(str(best))
    judged = again.val(batch=8, workers=0, project=str(tmp_path), name="val", **common)
    marks = [p.read_text().split() for p in (squares.parent / "labels/val").glob("*.txt")]
    assert judged.nt_per_class.sum() == sum(len(m) // 5 for m in marks) > 0
    exported = Path(again.export(format="onnx", imgsz=64, opset=17, simplify=False))
    assert exported.stat().st_size > 1e6
