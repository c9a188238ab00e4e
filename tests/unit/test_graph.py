"""Reading, fixing and storing ONNX graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgekit.core.errors import RecipeError
from edgekit.core.places import shipped
from edgekit.graph.cost import cost_of
from edgekit.graph.half import restore_half, store_half
from edgekit.graph.int8_weights import restore_int8, store_int8
from edgekit.graph.onnx_file import inputs_of, read_onnx, save_onnx
from edgekit.graph.static import fix_shapes
from edgekit.graph.walk import before, name_nodes

pytestmark = pytest.mark.light


def test_weights_stored_in_fp16_come_back_as_the_same_float32(detector: Path):
    model = read_onnx(detector)
    half = store_half(model)
    assert sum(i.data_type == onnx.TensorProto.FLOAT16 for i in half.graph.initializer) >= 6
    back = restore_half(half)
    assert len(back.graph.node) == len(model.graph.node)
    given = {"images": np.random.default_rng(0).random((1, 3, 64, 64), np.float32)}
    rows = [onnxruntime.InferenceSession(m.SerializeToString()).run(None, given)[0] for m in (model, back)]
    np.testing.assert_allclose(*rows, rtol=2e-3, atol=2e-3)


def weighted(op: str) -> onnx.ModelProto:
    """Return a graph of one operator with a weight of 1,152 values whose output channels differ 1,000 times in size."""
    rng = np.random.default_rng(0)
    sizes = np.geomspace(0.01, 10, 24)
    shapes = {
        "Conv": (24, 16, 1, 3),
        "ConvTranspose": (16, 24, 1, 3),
        "Gemm": (24, 48),
        "MatMul": (48, 24),
        "Gather": (24, 48),
    }
    axis = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1, "Gather": 0}[op]
    shape = shapes[op]
    spread = sizes.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    weight = numpy_helper.from_array((rng.standard_normal(shape) * spread).astype(np.float32), "w")
    given = {"Conv": (2, 16, 8, 8), "ConvTranspose": (2, 16, 8, 8), "Gather": (5,)}.get(op, (4, 48))
    names = ["w", "x"] if op == "Gather" else ["x", "w"]
    more = {"transB": 1} if op == "Gemm" else {}
    kind = onnx.TensorProto.INT64 if op == "Gather" else onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, names, ["y"], name="n", **more)], "g",
        [onnx.helper.make_tensor_value_info("x", kind, given)], [onnx.helper.make_tensor_value_info("y", 1, None)], [weight],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"])
def test_weights_stored_in_int8_keep_each_output_channel_and_come_back_as_they_are_read(op: str):
    model = weighted(op)
    rng = np.random.default_rng(1)
    spec = model.graph.input[0].type.tensor_type
    shape = tuple(d.dim_value for d in spec.shape.dim)
    x = rng.integers(0, 24, shape) if op == "Gather" else rng.standard_normal(shape, np.float32)

    def answer(m: onnx.ModelProto) -> np.ndarray:
        return onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0].astype(np.float64)

    wanted = answer(model)
    large = len(model.SerializeToString())
    assert store_int8(model) == 1
    assert len(model.SerializeToString()) < 0.45 * large
    stored = answer(model)
    # Of rows of a table, and of channels: each on its own, for one scale of all would lose the small ones.
    last = (
        (0, 1)
        if op == "Gather"
        else tuple(k for k in range(wanted.ndim) if k != (1 if wanted.ndim > 1 else 0))
    )
    each = ((stored - wanted) ** 2).sum(axis=last) / (wanted**2).sum(axis=last)
    assert np.max(each) < 1e-3
    assert np.max(each) > 0
    back = restore_int8(model)
    assert [n.op_type for n in back.graph.node] == [op]
    assert [i.name for i in back.graph.initializer] == ["w"]
    np.testing.assert_array_equal(answer(back), stored)


def test_int8_constants_of_another_kind_are_left_alone():
    helper, rng = onnx.helper, np.random.default_rng(0)
    arrays = {"q": rng.integers(-9, 9, (4, 4)).astype(np.int8), "s": np.float32([0.5]), "z": np.float32([1])}
    nodes = [
        helper.make_node("Cast", ["q"], ["f"], name="c", to=1), helper.make_node("Sub", ["f", "z"], ["d"], name="d"),
        helper.make_node("Mul", ["s", "f"], ["e"], name="e"), helper.make_node("Add", ["d", "e"], ["w"], name="w"),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="m"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, (2, 4))], [helper.make_tensor_value_info("y", 1, (2, 4))],
        [numpy_helper.from_array(v, n) for n, v in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    before = model.SerializeToString()
    assert restore_int8(model).SerializeToString() == before


def test_a_weight_that_stands_among_the_inputs_too_is_stored():
    model = weighted("MatMul")
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, (48, 24)))
    assert store_int8(model) == 1
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [i.name for i in session.get_inputs()] == ["x"]


def test_a_weight_that_two_operators_read_along_other_axes_stays_as_it_is():
    model = weighted("Gather")
    rows = onnx.helper.make_node("MatMul", ["y", "t"], ["z"], name="m")
    turned = onnx.helper.make_node("Transpose", ["w"], ["t"], name="t")
    model.graph.node.extend([turned, rows])
    assert store_int8(model) == 0


def test_the_shipped_detector_is_small_and_says_what_it_is():
    path = shipped("models") / "uav-yolov8n.onnx"
    assert path.stat().st_size < 7e6
    model = fix_shapes(restore_half(read_onnx(path)), imgsz=640, where="shipped")
    cost = cost_of(model)
    # ultralytics counts 3,006,623 parameters for YOLOv8n of five classes, fused.
    assert cost.params == 3_006_623
    assert cost.gflops == pytest.approx(8.1, abs=0.1)


def test_a_saved_model_has_an_ir_that_old_engines_read_and_the_same_bytes_twice(
    detector: Path, tmp_path: Path
):
    model = read_onnx(detector)
    model.ir_version = 13
    save_onnx(model, tmp_path / "a.onnx")
    save_onnx(read_onnx(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    assert onnx.load(str(tmp_path / "a.onnx")).ir_version == 10
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("place", ["/etc/passwd", "../w.bin", "gone.bin", "link.bin"])
def test_external_data_elsewhere_is_refused(detector: Path, tmp_path: Path, place: str):
    model = onnx.load(str(detector))
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=place)
    (tmp_path / "m").mkdir()
    (tmp_path / "secret").write_bytes(b"0" * 10000)
    (tmp_path / "m" / "link.bin").symlink_to(tmp_path / "secret")
    path = tmp_path / "m" / "x.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(RecipeError, match="external data"):
        read_onnx(path)


def test_a_free_size_is_fixed_to_what_is_asked():
    model = restore_half(read_onnx(shipped("models") / "uav-yolov8n.onnx"))
    assert inputs_of(fix_shapes(model, imgsz=320, where="x"))[0].shape == (1, 3, 320, 320)


def test_a_free_dimension_nobody_knows_is_refused(detector: Path):
    model = read_onnx(detector)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"
    with pytest.raises(RecipeError, match="free dimension 1"):
        fix_shapes(model, imgsz=0, where="x")


def test_nodes_get_names_of_their_own_and_their_ancestors_are_found(detector: Path):
    model = read_onnx(detector)
    for node in model.graph.node:
        node.name = "same"
    name_nodes(model.graph)
    names = [n.name for n in model.graph.node]
    assert len(set(names)) == len(names)
    assert before(model.graph, {names[2]}) == set(names[:3])


def test_external_data_of_any_name_is_part_of_the_models_digest(detector: Path, tmp_path: Path):
    from edgekit.models.find import find_by_path

    model = onnx.load(str(detector))
    onnx.save(
        model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.onnx_data", size_threshold=0
    )
    before = find_by_path(tmp_path / "m.onnx", trust=False).sha256
    data = bytearray((tmp_path / "m.onnx_data").read_bytes())
    data[0] ^= 1
    (tmp_path / "m.onnx_data").write_bytes(bytes(data))
    assert find_by_path(tmp_path / "m.onnx", trust=False).sha256 != before


def test_a_file_that_is_no_model_is_refused(tmp_path: Path):
    (tmp_path / "x.onnx").write_text("hello")
    with pytest.raises(RecipeError, match=r"x\.onnx"):
        read_onnx(tmp_path / "x.onnx")
