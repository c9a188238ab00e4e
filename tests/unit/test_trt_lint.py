"""Each planted fault is found by its own rule, and by TensorRT for RTX where it can see it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

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
