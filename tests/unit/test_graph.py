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
