"""The plumbing of a TensorRT session: addresses, sizes, types, copies, graphs; engines compute in onnxruntime."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.backends import tensorrt as own
from edgekit.backends.cuda import Cuda
from edgekit.core.errors import ContractError, MissingError, ResourceError
from edgekit.core.records import Contract
from edgekit.graph.onnx_file import inputs_of, outputs_of, read_onnx
from tests.contract.test_plugins import inputs, reference
from tests.fake_cuda import Driver, tensorrt

pytestmark = pytest.mark.light


def contract_of(path: Path) -> Contract:
    model = read_onnx(path)
    return Contract(inputs=inputs_of(model), outputs=outputs_of(model))


def session_on(path: Path, driver: Driver, **words: Any) -> Any:
    trt = tensorrt(driver, **words)
    return own.opened(path.read_bytes(), contract_of(path), trt=trt, cuda=Cuda(driver))


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("captures", [False, True])
def test_inputs_reach_the_engine_and_outputs_come_back(detector: Path, integrated: bool, captures: bool):
    driver = Driver(integrated=integrated, captures=captures)
    with session_on(detector, driver) as session:
        assert (session.graph_gain > 0) == captures
        for given in inputs(3):
            (found,), (expected,) = session.infer(given).values(), reference(detector, given).values()
            assert np.array_equal(found, expected)
        copies = [c for c in driver.calls if c.startswith("cuMemcpy")]
        assert bool(copies) != integrated, "a Jetson's GPU reads the same memory"
        allocated = driver.calls.count("cuMemHostAlloc") + driver.calls.count("cuMemAlloc_v2")
        session.look(inputs(1)[0])
        again = driver.calls.count("cuMemHostAlloc") + driver.calls.count("cuMemAlloc_v2")
        assert again == allocated, "everything is allocated once"
        kept = session.look(inputs(1)[0])
        session.infer(inputs(2)[1])
        assert not np.array_equal(*kept.values(), *reference(detector, inputs(1)[0]).values()), (
            "look is a view"
        )
    assert driver.kept == {}, "all memory is given back"


def test_staged_inputs_run_again_without_a_copy(detector: Path):
    driver = Driver()
    with session_on(detector, driver) as session:
        session.stage(inputs(1)[0])
        before = len([c for c in driver.calls if c.startswith("cuMemcpy")])
        session.run_staged()
        session.run_staged()
        assert len([c for c in driver.calls if c.startswith("cuMemcpy")]) == before


def test_half_precision_at_the_engines_ends_is_cast(detector: Path):
    with session_on(detector, Driver(), half=("images", "output0")) as session:
        given = inputs(1)[0]
        (found,), (expected,) = session.infer(given).values(), reference(detector, given).values()
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 0.1


def test_int32_of_tensorrt_8_is_widened_to_the_contracts_int64(tmp_path: Path):
    node = helper.make_node("ArgMax", ["x"], ["best"], axis=1, name="best")
    graph = helper.make_graph(
        [node], "best", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("best", TensorProto.INT64, [1, 1, 4, 4])],
    )  # fmt: skip
    path = tmp_path / "best.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    with session_on(path, Driver(), narrow=("best",)) as session:
        given = {"x": np.random.default_rng(0).random((1, 3, 4, 4), np.float32)}
        found = session.infer(given)["best"]
        assert found.dtype == np.int64
        assert np.array_equal(found, given["x"].argmax(1, keepdims=True))


def test_a_foreign_engine_and_a_foreign_contract_are_refused(detector: Path, classifier: Path):
    driver = Driver()
    with pytest.raises(ContractError, match="cannot read the engine: Version tag does not match"):
        own.opened(b"foreign", contract_of(detector), trt=tensorrt(driver), cuda=Cuda(driver))
    assert "cuDevicePrimaryCtxRelease_v2" in driver.calls
    assert not driver.kept, "nothing stays allocated"
    with pytest.raises(ContractError, match="the engine has"):
        own.opened(detector.read_bytes(), contract_of(classifier), trt=tensorrt(driver), cuda=Cuda(driver))


def test_a_gpu_without_memory_says_so(detector: Path):
    with pytest.raises(ResourceError, match="the GPU has no memory left"):
        session_on(detector, Driver(memory=1000))


def test_the_receipt_names_precision_and_share_of_time(detector: Path):
    half = {"Name": "t", "Format/Datatype": "Half"}
    int8 = {"Name": "t", "Format/Datatype": "Int8"}
    layers = [
        {
            "Name": "a",
            "LayerType": "gemm",
            "Inputs": [int8],
            "Outputs": [half],
            "Metadata": "[ONNX Layer: first]",
        },
        {
            "Name": "b",
            "LayerType": "kgen",
            "Inputs": [half],
            "Outputs": [half],
            "Metadata": "[ONNX Layer: relu1]",
        },
    ]
    with session_on(detector, Driver(), layers=json.dumps({"Layers": layers})) as session:
        first, second = session.profiled(inputs(1)[0])
    assert (first.dtype, first.covers, first.share) == ("int8", ("first",), pytest.approx(1 / 3))
    assert (second.dtype, second.share) == ("fp16", pytest.approx(2 / 3))


def test_without_a_driver_the_reason_is_told_and_nothing_crashes(detector: Path):
    def missing(_name: str) -> Any:
        raise OSError

    with pytest.raises(MissingError, match="no NVIDIA driver"):
        Cuda(missing)
    assert "built on the device; here no NVIDIA driver" in own.PLUGIN.refusal({})


def test_an_app_may_load_in_one_thread_and_run_in_another(detector: Path):
    driver = Driver()
    (given,) = inputs(1)
    found: list[Any] = []
    with session_on(detector, driver) as session:
        thread = threading.Thread(target=lambda: found.append(session.infer(given)))
        thread.start()
        thread.join()
    (one,), (two,) = found[0].values(), reference(detector, given).values()
    assert np.array_equal(one, two)


def test_a_driver_without_tensorrt_for_this_python_is_a_reason_not_an_error(monkeypatch: pytest.MonkeyPatch):
    """A venv made without --system-site-packages on a Jetson: the app gets the next variant."""
    monkeypatch.setattr(own.build_engine, "probe", dict)
    monkeypatch.setattr(own, "have", lambda _: False)
    assert "has no tensorrt" in own.PLUGIN.refusal({})
