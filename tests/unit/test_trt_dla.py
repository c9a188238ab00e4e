"""What goes to a DLA, and what is left to the GPU so that it takes the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.backends.trt_trtexec import command
from edgekit.core.errors import RecipeError
from edgekit.devices.jetpacks import target_for
from edgekit.devices.profiles import profile_of
from edgekit.lowering.trt_dialects import write
from edgekit.lowering.trt_dla import left_to_gpu
from edgekit.lowering.trt_lint import lint

pytestmark = pytest.mark.light


def broken_up(parts: int) -> Any:
    """Return a network whose convolutions, each wider than the one before, stand between what a DLA cannot run."""
    nodes, stored, name = [], [], "x"
    for k in range(parts):
        # 1x1 kernels of 4 channels, and k + 1 of them one after the other.
        for j in range(k + 1):
            stored.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), f"w{k}_{j}"))
            nodes.append(helper.make_node("Conv", [name, f"w{k}_{j}"], [f"c{k}_{j}"], name=f"conv{k}_{j}"))
            name = f"c{k}_{j}"
        nodes.append(helper.make_node("Erf", [name], [f"e{k}"], name=f"erf{k}"))
        name = f"e{k}"
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 2, 2])
    made = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 2, 2])
    graph = helper.make_graph(nodes, "parts", [given], [made], stored)
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    )


def test_the_parts_with_the_fewest_weights_stay_on_the_gpu():
    assert left_to_gpu(broken_up(16)) == []
    assert sorted(left_to_gpu(broken_up(18))) == ["conv0_0", "conv1_0", "conv1_1"]


@pytest.mark.parametrize("words", [{"jetpack": "6.2", "dla": 0}, {"tensorrt": "11.4.1", "dla": 0}])
def test_a_network_in_many_parts_is_written_for_the_dla_all_the_same(words: dict[str, Any]):
    target = target_for(profile_of("jetson-agx-orin"), **words)
    one = write(broken_up(18), None, "fp16", target)
    assert {"conv0_0", "conv1_0", "conv1_1"} <= set(one.options["gpu_layers"])
    assert "conv17_0" not in one.options["gpu_layers"]
    (found,) = (f for f in lint(one.model, target) if f.rule == "dla-switches")
    assert found.severity == "warning"


def test_trtexec_is_told_from_8_6_on():
    entry = {
        "model": "m.onnx", "flags": ["FP16"], "dla_core": 0, "gpu_fallback": True, "gpu_layers": ["a", "b"],
    }  # fmt: skip
    assert "--layerDeviceTypes=a:GPU,b:GPU" in command(entry, (8, 6), folder=".", engine="e")
    with pytest.raises(RecipeError, match="has no --layerDeviceTypes"):
        command(entry, (8, 5), folder=".", engine="e")
