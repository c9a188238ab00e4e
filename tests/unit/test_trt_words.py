"""trtexec's words for each version, and what its inspector says, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekit.backends.trt_inspector import dtype_word, layers_of, reformat_share
from edgekit.backends.trt_trtexec import command, flags_of
from edgekit.core.errors import ContractError, RecipeError

pytestmark = pytest.mark.light

GOLDEN = Path(__file__).with_name("trtexec.txt")
WEAK = {
    "model": "model.onnx",
    "workspace_mb": 2048,
    "builder_level": 3,
    "strongly_typed": False,
    "flags": ["FP16", "INT8"],
}
STRONG = {**WEAK, "strongly_typed": True, "flags": []}
DLA = {
    **WEAK, "dla_core": 0, "gpu_fallback": True, "calibration": "calib.cache", "precision_constraints": "prefer",
    "layer_precisions": {"/head/conv": "fp16", "/a": "fp16"},
}  # fmt: skip
CASES: list[tuple[str, tuple[int, int], dict[str, Any]]] = [
    ("JetPack 5.1, int8", (8, 5), WEAK), ("JetPack 5.1, fp16", (8, 5), {**WEAK, "flags": ["FP16"], "model": "fp16.onnx"}),
    ("JetPack 6.0, int8", (8, 6), WEAK), ("JetPack 6.2, strong", (10, 3), STRONG), ("JetPack 6.2, weak", (10, 3), WEAK),
    ("JetPack 6.2, DLA", (10, 3), DLA), ("JetPack 5.1, DLA", (8, 5), DLA), ("TensorRT 11", (11, 4), STRONG),
    ("TensorRT 11, DLA", (11, 4), {**STRONG, "dla_core": 1, "gpu_fallback": True}), ("sparse", (10, 3), {**STRONG, "sparse": True}),
]  # fmt: skip


# What NVIDIA's notes say a version has not, or not any more: --skipInference came with 8.6 for --buildOnly,
# typed networks with 10, and 11 dropped all that chooses precisions.
UNKNOWN = {
    "8.5": {"--skipInference", "--builderOptimizationLevel", "--stronglyTyped"}, "8.6": {"--stronglyTyped"}, "10": set(),
    "11": {"--fp16", "--int8", "--calib", "--precisionConstraints", "--layerPrecisions"},
}  # fmt: skip


def line(version: tuple[int, int], entry: dict[str, Any]) -> str:
    words = command(entry, version, folder="v", engine="e.plan", timing_cache="t.cache", layers="l.json")
    return " ".join(words)


@pytest.mark.parametrize(("name", "version", "entry"), CASES)
def test_the_command_line_is_the_golden_one_and_every_flag_is_known(
    name: str, version: tuple[int, int], entry: dict[str, Any]
):
    golden = dict(x.split(" | ", 1) for x in GOLDEN.read_text().splitlines())
    assert line(version, entry) == golden[name]
    flags = {w.partition("=")[0] for w in golden[name].split()[1:]}
    assert flags <= flags_of(version)
    assert not flags & UNKNOWN[f"{version[0]}.{version[1]}" if version[0] == 8 else str(version[0])]


def test_a_flag_that_the_version_does_not_know_is_refused_by_name():
    with pytest.raises(RecipeError, match="TensorRT 11.4 has no --fp16"):
        line((11, 4), WEAK)
    with pytest.raises(RecipeError, match="TensorRT 8.5 has no --stronglyTyped"):
        line((8, 5), STRONG)
    with pytest.raises(RecipeError, match="cannot name layer"):
        line((10, 3), {**DLA, "layer_precisions": {"a:b": "fp16"}})


def tensor(word: str) -> dict[str, Any]:
    return {"Name": "t", "Dimensions": [1, 8, 8, 8], "Format/Datatype": word}


OLD = {
    "Layers": [
        {"Name": "Reformatting CopyNode for Input Tensor 0 to /a/conv + PWN(/a/act)", "LayerType": "Reformat",
         "Inputs": [tensor("Row major linear FP32")], "Outputs": [tensor("Thirty-two wide channel vectorized row major Int8 format")]},
        {"Name": "/a/conv + PWN(/a/act)", "LayerType": "CaskConvolution",
         "Inputs": [tensor("Thirty-two wide channel vectorized row major Int8 format")],
         "Outputs": [tensor("Thirty-two wide channel vectorized row major Int8 format")], "Weights": {"Type": "Int8", "Count": 9}},
        {"Name": "/b/conv", "LayerType": "CaskConvolution", "Inputs": [tensor("Row major linear FP32")],
         "Outputs": [tensor("Row major linear FP32")], "Weights": {"Type": "Float", "Count": 9}},
        {"Name": "{ForeignNode[/c/conv.../d/conv]}", "LayerType": "DLA", "Inputs": [tensor("Row major Int8 format")], "Outputs": []},
    ],
    "Bindings": ["images", "output0"],
}  # fmt: skip
NEW = {
    "Layers": [
        {"Name": "__myl_Fused_1", "LayerType": "kgen", "Inputs": [tensor("Half")], "Outputs": [tensor("Half")],
         "Metadata": "[ONNX Layer: /a/act]\u001e[ONNX Layer: /a/mul]"},
        {"Name": "/a/conv_myl0", "LayerType": "gemm", "Inputs": [tensor("Int8"), tensor("Int8")], "Outputs": [tensor("Half")],
         "Metadata": "[ONNX Layer: /a/conv]"},
    ],
    "I/O Tensors": [],
}  # fmt: skip


def test_sentences_and_words_are_read_alike():
    times = {x["Name"]: ms for x, ms in zip(OLD["Layers"], (1.0, 5.0, 3.0, 1.0), strict=True)}
    copy, first, second, dla = layers_of(json.dumps(OLD), times)
    assert (first.dtype, first.unit, first.share, first.covers) == ("int8", "GPU", 0.5, ("/a/conv", "/a/act"))
    assert (second.dtype, second.covers) == ("fp32", ("/b/conv",)), (
        "asked for int8, ran in float32: to be seen"
    )
    assert (dla.unit, dla.dtype) == ("DLA", "int8")
    assert copy.op == "Reformat"
    assert reformat_share((copy, first, second, dla)) == pytest.approx(0.1)
    fused, conv = layers_of(json.dumps(NEW), {"__myl_Fused_1": 1.0, "/a/conv_myl0": 3.0})
    assert (fused.dtype, fused.covers) == ("fp16", ("/a/act", "/a/mul"))
    assert (conv.dtype, conv.covers, conv.share) == ("int8", ("/a/conv",), 0.75)


@pytest.mark.parametrize(
    ("word", "dtype"),
    [
        ("Channel major FP16 format where channel % 8 == 0", "fp16"), ("Half", "fp16"), ("Float", "fp32"), ("BFloat16", "bf16"),
        ("Row major linear FP32", "fp32"), ("Int8", "int8"), ("FP8", "fp8"), ("Int64", "int64"), ("strange", "?"),
    ],
)  # fmt: skip
def test_types_of_tensors(word: str, dtype: str):
    assert dtype_word(word) == dtype


def test_an_engine_without_details_is_refused():
    with pytest.raises(ContractError, match="without layer details"):
        layers_of('{"Layers": ["conv1", "conv2"]}', {})
    with pytest.raises(ContractError, match="gives no layers"):
        layers_of("{}", {})
    with pytest.raises(ContractError, match="names none"):
        layers_of(json.dumps(NEW), {"other": 1.0})
