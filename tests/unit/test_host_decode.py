"""Boxes decoded on the host: against torch's own decoder, and where the network's must stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from edgekit.answers.detect import Detect, boxes_of
from edgekit.core.places import shipped
from edgekit.core.records import Answers
from edgekit.data import thermal_mini, uav_mini
from edgekit.export.torch_onnx import to_onnx
from edgekit.frames.place import Placement
from edgekit.graph.decode_tail import cut_decoder, levels_of
from edgekit.graph.onnx_file import outputs_of, read_onnx
from edgekit.graph.static import slim
from edgekit.measure.parity import scores_fell
from edgekit.models.find import find_by_name
from edgekit.models.torch_models import build, for_export
from edgekit.models.weights import read_header

SPEC = Answers(task="detect", layout="yolov8", classes=("a", "b", "c", "d", "e"), score=0.25, iou=0.7)


def exported(name: str = "hierlight-yolo-n-uav", side: int = 320):
    weights = shipped("models") / f"{name}.safetensors"
    module = for_export(build(find_by_name(read_header(weights).architecture, weights=weights)).module)
    graph = slim(to_onnx(module, (1, 3, side, side), opset=17), where=name)
    return module, onnx.shape_inference.infer_shapes(graph, data_prop=True)


def picture(name: str) -> np.ndarray:
    draw = thermal_mini.draw_scene if "thermal" in name else uav_mini.draw_scene
    image = draw(seed=0, split="val", index=0, size=400).image[:320, :320]
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    return np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None], np.float32) / 255


def run(model, x: np.ndarray) -> dict[str, np.ndarray]:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


@pytest.mark.parametrize("name", ["hierlight-yolo-n-uav", "ms-yolo-thermal", "uav-yolov8n"])
@pytest.mark.parametrize("each_class", [False, True])
def test_the_host_decodes_what_torch_decodes(name: str, each_class: bool):
    module, graph = exported(name)
    cut = cut_decoder(graph)
    assert [o.name for o in outputs_of(cut.model)] == ["boxes", "scores"]
    x = picture(name)
    with torch.no_grad():
        whole = {"output0": module(torch.from_numpy(x)).numpy()}
    place = Placement(scale_x=1, scale_y=1, left=0, top=0, width=320, height=320)
    host = replace(SPEC, layout="yolov8-logits", levels=cut.levels)
    one = Detect().answer(whole, SPEC, place, each_class=each_class)
    other = Detect().answer(run(cut.model, x), host, place, each_class=each_class)
    assert 2 < len(one) == len(other)
    assert np.abs(one.boxes - other.boxes).max() < 0.01
    assert np.abs(one.scores - other.scores).max() < 1e-5
    assert (one.classes == other.classes).all()


def test_nothing_above_the_threshold_gives_no_boxes():
    _, graph = exported()
    cut = cut_decoder(graph)
    place = Placement(scale_x=1, scale_y=1, left=0, top=0, width=320, height=320)
    outputs = run(cut.model, np.zeros((1, 3, 320, 320), np.float32))
    for score in (0.999999, 1.0):
        spec = replace(SPEC, layout="yolov8-logits", levels=cut.levels, score=score)
        assert len(Detect().answer(outputs, spec, place)) == 0


def test_a_box_worked_out_by_hand():
    # Level of stride 8, 2 x 3; anchor 4 is row 1, column 1: its middle is (12, 12) pixels.
    raw = np.full((1, 64, 6), -50, np.float32)
    for side, distance in enumerate((1, 0, 2, 1)):
        raw[0, side * 16 + distance, 4] = 50
    box = boxes_of(raw, ((8, 2, 3),), np.array([4]))
    assert box.tolist() == [[12 - 8, 12, 12 + 16, 12 + 8]]


@pytest.mark.parametrize(
    ("anchors", "size", "strides"),
    [
        (34_000, (640, 640), (4, 8, 16, 32)),
        (8_400, (640, 640), (8, 16, 32)),
        (27_200, (512, 640), (4, 8, 16, 32)),
        (77, (64, 64), ()),
    ],
)
def test_levels_are_told_by_the_number_of_anchors(anchors: int, size, strides):
    assert tuple(s for s, _, _ in levels_of(anchors, size)) == strides


def test_a_detector_with_another_decoder_is_left_alone(detector):
    assert cut_decoder(onnx.shape_inference.infer_shapes(read_onnx(detector))) is None


def test_scores_that_fell_are_seen():
    alive = {"output0": np.concatenate([np.full((1, 4, 9), 320.0), np.full((1, 2, 9), 0.4)], 1)}
    # One scale of 2.5 for boxes and scores: every score rounds to zero.
    dead = {"output0": np.round(alive["output0"] / 2.5) * 2.5}
    assert scores_fell([alive], [dead], SPEC)
    assert not scores_fell([alive], [alive], SPEC)
    assert not scores_fell([dead], [dead], SPEC)
    logits = replace(SPEC, layout="yolov8-logits")
    given = {"boxes": np.zeros((1, 64, 9)), "scores": np.linspace(-9, 2, 18).reshape(1, 2, 9)}
    assert scores_fell([given], [{**given, "scores": np.full((1, 2, 9), -3.0)}], logits)
    assert scores_fell([given], [{**given, "scores": given["scores"] - 2}], logits)
    assert not scores_fell([given], [given], logits)


def _scored(*scores: float) -> dict[str, np.ndarray]:
    boxes = np.full((1, 4, len(scores)), 320.0)
    return {"output0": np.concatenate([boxes, np.array(scores)[None, None]], axis=1)}


def test_scores_of_a_quarter_keep_their_order_and_are_seen():
    assert scores_fell(
        [_scored(0.98, 0.02), _scored(0.9, 0.6)], [_scored(0.245, 0), _scored(0.22, 0.15)], SPEC
    )


def test_one_detection_lost_of_many_is_for_accuracy_to_judge():
    frames = [_scored(0.9, 0.8), _scored(0.3, 0.01)]
    assert not scores_fell(frames, [_scored(0.88, 0.7), _scored(0.1, 0.01)], SPEC)


def test_scores_are_compared_by_rank():
    end_to_end = replace(SPEC, layout="end-to-end")
    rows = np.zeros((1, 3, 6))
    rows[0, :, 4] = 0.9, 0.5, 0.0
    assert not scores_fell([{"output0": rows}], [{"output0": rows[:, [2, 1, 0]]}], end_to_end)
