"""Each dialect of one network: right types, lint clean, the same answers, taken by a real parser and builder."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.calibration.layers import choices
from edgekit.calibration.ranges import observe
from edgekit.core.errors import RecipeError
from edgekit.core.plugins import pick
from edgekit.core.records import QuantPlan
from edgekit.devices.jetpacks import Target, target_for
from edgekit.devices.profiles import profile_of
from edgekit.graph.onnx_file import read_onnx, save_onnx
from edgekit.graph.strong import SCALE_FLOOR, strongly_typed
from edgekit.lowering.protocol import Options
from edgekit.lowering.tensorrt import stand_in
from edgekit.lowering.trt_cache import calibration_text, scales_in
from edgekit.lowering.trt_dialects import write
from edgekit.lowering.trt_lint import lint
from edgekit.lowering.trt_rtx import asked
from tests.contract.test_plugins import network_of, plan_of
from tests.unit.test_trt_lint import rtx

TARGETS = {
    "trt8-8.5": ("jetson-xavier-nx", {"jetpack": "5.1"}),
    "trt8-8.6": ("jetson-agx-orin", {"jetpack": "6.0"}),
    "trt10-strong": ("jetson-agx-orin", {"jetpack": "6.2"}),
    "trt10-weak": ("jetson-agx-orin", {"jetpack": "6.2", "weak": True}),
    "trt11": ("jetson-agx-orin", {"tensorrt": "11.4.1"}),
    "dla-cal": ("jetson-agx-orin", {"jetpack": "6.2", "dla": 0}),
    "trt11-dla": ("jetson-agx-orin", {"tensorrt": "11.4.1", "dla": 0}),
}
GIVEN = {"images": np.random.default_rng(0).random((1, 3, 64, 64), np.float32)}


def target(name: str) -> Target:
    device, words = TARGETS[name]
    return target_for(profile_of(device), **words)


def answers(model: Any, given: dict[str, np.ndarray] = GIVEN) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)


@pytest.fixture
def network(detector: Path) -> Any:
    return onnx.shape_inference.infer_shapes(read_onnx(detector))


@pytest.fixture
def plan(detector: Path) -> QuantPlan:
    return plan_of(detector)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_dialect_gives_the_same_answers_and_is_lint_clean(
    network: Any, plan: QuantPlan, name: str, precision: str
):
    one = write(network, plan, precision, target(name))
    onnx.checker.check_model(one.model, full_check=True)
    assert [f for f in lint(one.model, target(name)) if f.severity != "note"] == []
    (expected,), (found,) = answers(network), answers(one.judged or one.model)
    assert found.dtype == np.float32
    apart = np.abs(expected - found).max() / np.abs(expected).max()
    assert apart <= {"fp32": 0, "fp16": 0.002, "int8": 0.02}[precision]


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_dialect_is_taken_by_a_real_parser_and_builder(
    network: Any, plan: QuantPlan, tmp_path: Path, name: str, precision: str
):
    save_onnx(write(network, plan, precision, target(name)).model, tmp_path / "model.onnx")
    said = asked(tmp_path / "model.onnx")
    assert said.state == "accepted", said
    assert said.engine_mb > 0


def test_weak_dialects_keep_float32_and_opset_17_and_say_flags(network: Any, plan: QuantPlan):
    one = write(network, plan, "int8", target("trt8-8.5"))
    assert one.model.opset_import[0].version == 17
    assert one.options == {"strongly_typed": False, "flags": ["FP16", "INT8"]}
    stored = {i.name: i.data_type for i in one.model.graph.initializer}
    assert TensorProto.FLOAT16 not in stored.values()
    weights = [n for n in one.model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in stored]
    assert len(weights) == 3, "float weights, then Q, then DQ: what TensorRT 8 reads"


def test_strong_dialects_say_types_in_the_graph_and_no_flags(network: Any, plan: QuantPlan):
    one = write(network, plan, "int8", target("trt11"))
    assert one.options == {"strongly_typed": True, "flags": []}
    assert one.model.opset_import[0].version == 19
    scales = [i for i in one.model.graph.initializer if i.name.endswith("::scale::fp16")]
    assert scales
    assert all(float(numpy_helper.to_array(s).min()) >= SCALE_FLOOR * 0.99 for s in scales)
    inputs = {n.input[0] for n in one.model.graph.node if n.op_type == "Cast"}
    assert "images" in inputs


def test_scales_go_into_a_calibration_cache_for_the_dla(network: Any, plan: QuantPlan):
    one = write(network, plan, "int8", target("dla-cal"))
    assert not any("Linear" in n.op_type for n in one.model.graph.node)
    text = one.texts["calib.cache"]
    assert text.startswith("TRT-100300-EntropyCalibration2\n")
    low, high = plan.ranges["images"]
    scales = scales_in(text)
    assert scales["images"] == pytest.approx(max(-low, high) / 127, rel=1e-6)
    assert one.options["dla_core"] == 0
    read = {i for n in one.model.graph.node if n.name in plan.int8_layers() for i in n.input}
    assert read & plan.ranges.keys() <= scales.keys(), "what int8 layers read has a scale"
    assert scales.keys() < plan.ranges.keys(), "and not every tensor"
    held = one.options["layer_precisions"]
    others = {n.name for n in one.model.graph.node if not scales.keys() & set(n.input)}
    assert held == dict.fromkeys(sorted(others), "fp16")
    assert held, "activations are held in fp16, as the graph that is judged has them"


def test_the_cache_has_nvidias_digits():
    text = calibration_text({"tensor": 1.0}, "8.6.0")
    assert text.splitlines()[0] == "TRT-8600-EntropyCalibration2"
    (scale,) = struct.unpack(">f", bytes.fromhex("3c00f9f4"))
    assert scale == pytest.approx(0.007872, rel=1e-4)
    assert calibration_text({"t": scale}, "8.6.0").splitlines()[1] == "t: 3c00f9f4"
    with pytest.raises(RecipeError, match="line 2"):
        scales_in("TRT-8600-EntropyCalibration2\nx: zz\n")
    with pytest.raises(RecipeError, match="first line"):
        scales_in("x: 3c00f9f4\n")


def attention() -> Any:
    """Return a transformer block by hand: norm, scores, softmax, GELU by Erf."""
    rng = np.random.default_rng(0)
    size, tokens = 32, 16
    stored = {k: rng.normal(size=(size, size)).astype(np.float32) / 6 for k in ("q", "k", "v", "m")}
    stored |= {"g": np.ones(size, np.float32), "b": np.zeros(size, np.float32)}
    stored |= {
        "half": np.array(0.5, np.float32),
        "one": np.array(1, np.float32),
        "root": np.array(2**0.5, np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"], axis=-1),
        *(helper.make_node("MatMul", ["n", w], [f"{w}1"]) for w in "qkv"),
        helper.make_node("Transpose", ["k1"], ["kt"], perm=[0, 2, 1]), helper.make_node("MatMul", ["q1", "kt"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1), helper.make_node("MatMul", ["p", "v1"], ["a"]),
        helper.make_node("MatMul", ["a", "m"], ["h"]), helper.make_node("Div", ["h", "root"], ["e"]),
        helper.make_node("Erf", ["e"], ["f"]), helper.make_node("Add", ["f", "one"], ["w"]),
        helper.make_node("Mul", ["h", "w"], ["z"]), helper.make_node("Mul", ["z", "half"], ["u"]),
        helper.make_node("Add", ["x", "u"], ["y"]),
    ]  # fmt: skip
    for k, node in enumerate(nodes):
        node.name = f"{node.op_type}_{k}"
    graph = helper.make_graph(
        nodes, "block", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, tokens, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, tokens, size])],
        [numpy_helper.from_array(v, n) for n, v in stored.items()],
    )  # fmt: skip
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )


@pytest.mark.parametrize("name", ["trt8-8.5", "trt8-8.6", "trt10-strong"])
def test_a_transformer_block_is_written_for_each(name: str):
    one = write(attention(), None, "fp16", target(name))
    ops = {n.op_type for n in one.model.graph.node}
    assert ("LayerNormalization" in ops) == (name != "trt8-8.5"), "8.5 reads none"
    assert [f for f in lint(one.model, target(name)) if f.severity == "error"] == []
    given = {"x": np.random.default_rng(1).normal(size=(1, 16, 32)).astype(np.float32)}
    (expected,), (found,) = answers(attention(), given), answers(one.model, given)
    assert np.abs(expected - found).max() <= 2e-3 * np.abs(expected).max()


def test_what_does_not_fit_into_fp16_stays_in_float32():
    large = numpy_helper.from_array(np.full(3, 1e5, np.float32).reshape(1, 3, 1, 1), "c")
    nodes = [
        helper.make_node("Div", ["x", "c"], ["d"], name="div"),
        helper.make_node("Relu", ["d"], ["y"], name="relu"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 4, 4]) for n in "xy"]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], [large])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    done = strongly_typed(model)
    assert [n.op_type for n in done.graph.node] == ["Div", "Cast", "Relu", "Cast"]
    given = {"x": np.full((1, 3, 4, 4), 3e4, np.float32)}
    assert np.allclose(answers(done, given)[0], 0.3, rtol=1e-3)


def test_int64_outputs_are_int32_for_tensorrt_8():
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=1, name="best")
    graph = helper.make_graph(
        [node], "best", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1, 1, 4, 4])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    kinds = {}
    for name in ("trt8-8.6", "trt10-strong"):
        done = write(model, None, "fp16", target(name)).model
        kinds[name] = done.graph.output[0].type.tensor_type.elem_type
        onnx.checker.check_model(done, full_check=True)
    assert kinds == {"trt8-8.6": TensorProto.INT32, "trt10-strong": TensorProto.INT64}


def test_a_concat_between_fp16_scales_runs_on_the_host(tmp_path: Path):
    """onnxruntime fuses it into a QLinearConcat that takes no fp16 scales: the file must run as written."""
    rng = np.random.default_rng(0)
    weights = {
        w: rng.normal(size=(8, c, 3, 3)).astype(np.float32) / 5 for w, c in (("a", 3), ("b", 3), ("c", 16))
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["a1"], name="left", pads=[1] * 4), helper.make_node("Relu", ["a1"], ["a2"], name="r1"),
        helper.make_node("Conv", ["x", "b"], ["b1"], name="right", pads=[1] * 4), helper.make_node("Relu", ["b1"], ["b2"], name="r2"),
        helper.make_node("Concat", ["a2", "b2"], ["k"], name="join", axis=1),
        helper.make_node("Conv", ["k", "c"], ["y"], name="last", pads=[1] * 4),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "join", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 16, 16])],
        [numpy_helper.from_array(v, n) for n, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "join.onnx"
    save_onnx(onnx.shape_inference.infer_shapes(model), path)
    given = {"x": rng.random((1, 3, 16, 16), np.float32)}
    seen = observe(read_onnx(path), ["x", "a2", "b2", "k"], [given])
    plan = QuantPlan(ranges=seen.over_all(), layers=choices(read_onnx(path)), calibration="test")
    (tmp_path / "out").mkdir()
    options = Options(precision="int8", target=target("trt10-strong"))
    artifact = stand_in(network_of(path), plan, options, tmp_path / "out")
    with pick("backends", "onnxruntime", what="backend").open(artifact) as session:
        found = session.infer(given)["y"]
    (expected,) = answers(model, given)
    assert np.abs(found - expected).max() <= 0.03 * np.abs(expected).max()


def test_int8_without_a_plan_is_refused(network: Any):
    with pytest.raises(RecipeError, match="quantize"):
        write(network, None, "int8", target("trt11"))


def test_a_constant_that_fp16_turns_into_zero_keeps_its_node_in_float32():
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    stored = [numpy_helper.from_array(np.array([1e-12], np.float32), "eps")]
    nodes = [
        helper.make_node("Add", ["x", "eps"], ["sum"], name="add"),
        helper.make_node("Div", ["x", "sum"], ["y"], name="div"),
    ]
    graph = helper.make_graph(nodes, "one", [given], [made], stored)
    typed = strongly_typed(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]))
    types = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(typed).graph.value_info
    }
    (add,) = (n for n in typed.graph.node if n.name == "add")
    assert "eps" in add.input
    assert types["sum"] == TensorProto.FLOAT


def test_a_constant_of_shape_without_a_value_makes_half_zeros():
    shape = numpy_helper.from_array(np.array([1, 4], np.int64), "shape")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"], name="zeros"),
        helper.make_node("Add", ["x", "zeros"], ["y"], name="add"),
    ]
    graph = helper.make_graph(nodes, "one", [given], [made], [shape])
    typed = strongly_typed(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]))
    onnx.checker.check_model(typed, full_check=True)


def test_weak_types_keep_sums_and_norms_in_float32_as_the_judged_graph_has_them():
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["m"], name="mul"),
        helper.make_node("ReduceMean", ["m"], ["y"], name="mean", axes=[2]),
    ]
    graph = helper.make_graph(nodes, "one", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert write(model, None, "fp16", target("trt10-weak")).options["layer_precisions"] == {"mean": "fp32"}
    assert "layer_precisions" not in write(model, None, "fp32", target("trt10-weak")).options
