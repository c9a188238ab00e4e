"""Each planted fault is found by its own rule, and by TensorRT for RTX where it can see it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.lazy import have
from edgekit.devices.jetpacks import target_for
from edgekit.devices.profiles import profile_of
from edgekit.graph.onnx_file import save_onnx
from edgekit.lowering.trt_lint import lint
from edgekit.lowering.trt_rtx import asked
from tests.trt_faults import FAULTS, model, quantized

HAS_RTX = have("tensorrt_rtx")
# CI's Python 3.10 has the light side and [host] alone.
if os.environ.get("EDGEKIT_LAB_REQUIRED") and not HAS_RTX and sys.version_info >= (3, 11):
    raise RuntimeError("tensorrt-rtx is required here and not installed")
rtx = pytest.mark.skipif(not HAS_RTX, reason="edgekit[tensorrt-rtx] is not installed")


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_rule(name: str):
    fault = FAULTS[name]
    profile, words = fault.device
    found = lint(fault.make(), target_for(profile_of(profile), **words))
    assert (fault.rule, fault.severity) in {(f.rule, f.severity) for f in found}, found
    assert all(f.what and f.todo and f.node for f in found)


@rtx
@pytest.mark.parametrize("name", FAULTS)
def test_tensorrt_for_rtx_rejects_what_it_can_see(name: str, tmp_path: Path):
    save_onnx(FAULTS[name].make(), tmp_path / "fault.onnx")
    said = asked(tmp_path / "fault.onnx")
    assert said.state == FAULTS[name].rtx, said
    assert said.words or said.state == "accepted"


def test_a_sound_file_has_no_findings():
    for device, words in (
        ("jetson-xavier-nx", {}),
        ("jetson-agx-orin", {}),
        ("jetson-agx-orin", {"tensorrt": "11.4.1"}),
    ):
        assert lint(quantized(), target_for(profile_of(device), **words)) == []


def test_an_operator_that_no_table_names_is_an_error():
    from onnx import helper

    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    one = model([node], {})
    one.graph.node[0].op_type = "MyRelu"
    found = lint(one, target_for(profile_of("jetson-agx-orin")))
    assert [(f.rule, f.node) for f in found] == [("operator", "relu")]


def test_a_dequantizer_of_int8_needs_no_zero_point():
    """It is optional, and the type is the input's."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    stored = [
        numpy_helper.from_array(np.ones((1, 4), np.int8), "w"), numpy_helper.from_array(np.float32(0.1), "s"),
    ]  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], name="dq"),
        helper.make_node("Add", ["x", "d"], ["y"], name="add"),
    ]
    sound = helper.make_model(
        helper.make_graph(nodes, "one", [given], [made], stored), opset_imports=[helper.make_opsetid("", 17)]
    )
    assert not [f for f in lint(sound, target_for(profile_of("jetson-orin"))) if f.rule == "uint8"]
