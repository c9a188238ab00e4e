"""A driver in plain memory and a TensorRT whose engines are ONNX files: for the plumbing of a session.

The engine computes for real, in onnxruntime, on the bytes that lie at the addresses it was given; so a wrong
address, size, type or order gives wrong answers. It says nothing about a GPU.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

_NEED_CONTEXT = frozenset({
    "cuMemHostAlloc", "cuMemAlloc_v2", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize", "cuGraphLaunch",
    "cuMemFree_v2", "cuMemFreeHost", "cuStreamCreate",
})  # fmt: skip


class Driver:
    """libcuda.so.1's part that edgekit calls."""

    def __init__(self, *, integrated: bool = False, captures: bool = True, memory: int = 1 << 30) -> None:
        self.integrated, self.captures, self.memory = integrated, captures, memory
        self.kept: dict[int, Any] = {}
        self.calls: list[str] = []
        self.recording: list[Callable[[], None]] | None = None
        self.graphs: list[list[Callable[[], None]]] = []
        # A context belongs to a thread: calls in another fail as CUDA's do.
        self.threads: set[int] = set()

    def __call__(self, _name: str) -> Driver:
        return self

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*words: Any) -> int:
            self.calls.append(name)
            if name in _NEED_CONTEXT and threading.get_ident() not in self.threads:
                return 201
            return getattr(Driver, f"_{name}")(self, *words) or 0

        return call

    def _nothing(self, *_: Any) -> None:
        return None

    def _cuCtxSetCurrent(self, _context: Any) -> None:
        self.threads.add(threading.get_ident())

    _cuInit = _cuStreamDestroy_v2 = _cuDevicePrimaryCtxRelease_v2 = _nothing
    _cuStreamSynchronize = _cuGraphExecDestroy = _nothing

    def _cuDeviceGetCount(self, ref: Any) -> None:
        ref._obj.value = 1

    def _cuDriverGetVersion(self, ref: Any) -> None:
        ref._obj.value = 12060

    def _cuDeviceGetName(self, buffer: Any, _size: int, _device: int) -> None:
        buffer.value = b"Orin"

    def _cuDevicePrimaryCtxRetain(self, ref: Any, _device: int) -> None:
        ref._obj.value = 1

    def _cuDeviceGetAttribute(self, ref: Any, number: int, _device: int) -> None:
        ref._obj.value = {18: int(self.integrated), 75: 8, 76: 7, 16: 16}.get(number, 0)

    def _cuStreamCreate(self, ref: Any, _flags: int) -> None:
        ref._obj.value = 77

    def _allocate(self, ref: Any, size: Any) -> int:
        if size.value > self.memory:
            return 2
        self.memory -= size.value
        place = ctypes.create_string_buffer(size.value)
        ref._obj.value = ctypes.addressof(place)
        self.kept[ctypes.addressof(place)] = place
        return 0

    def _cuMemHostAlloc(self, ref: Any, size: Any, _flags: int) -> int:
        return self._allocate(ref, size)

    def _cuMemAlloc_v2(self, ref: Any, size: Any) -> int:
        return self._allocate(ref, size)

    def _cuMemHostGetDevicePointer_v2(self, ref: Any, host: Any, _flags: int) -> None:
        ref._obj.value = host.value

    def _cuMemcpyHtoDAsync_v2(self, device: Any, host: Any, size: Any, _stream: Any) -> None:
        ctypes.memmove(device.value, host.value, size.value)

    def _cuMemcpyDtoHAsync_v2(self, host: Any, device: Any, size: Any, _stream: Any) -> None:
        ctypes.memmove(host.value, device.value, size.value)

    def _free(self, place: Any) -> None:
        del self.kept[place.value]

    _cuMemFree_v2 = _cuMemFreeHost = _free

    def _cuStreamBeginCapture_v2(self, _stream: Any, _mode: int) -> int:
        self.recording = []
        return 0

    def _cuStreamEndCapture(self, _stream: Any, ref: Any) -> int:
        if not self.captures:
            self.recording = None
            return 901
        self.graphs.append(self.recording or [])
        self.recording = None
        ref._obj.value = len(self.graphs)
        return 0

    def _cuGraphInstantiateWithFlags(self, ref: Any, graph: Any, _flags: Any) -> None:
        ref._obj.value = graph.value

    def _cuGraphLaunch(self, graph: Any, _stream: Any) -> None:
        for work in self.graphs[graph.value - 1]:
            work()


def tensorrt(
    driver: Driver,
    *,
    layers: str | Callable[[bytes], str] = "",
    half: tuple[str, ...] = (),
    narrow: tuple[str, ...] = (),
) -> Any:
    """Return a module whose plans are ONNX files.

    Args:
        driver: Where the addresses lie.
        layers: What the inspector says, or what makes that of a plan.
        half: Tensors that the engine has in fp16.
        narrow: Outputs that the engine has in INT32 where the file says INT64.
    """
    modes = enum.IntEnum("TensorIOMode", "NONE INPUT OUTPUT", start=0)

    class Engine:
        def __init__(self, plan: bytes) -> None:
            options = onnxruntime.SessionOptions()
            # Its fusions take scales in float32 for granted.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            self.session = onnxruntime.InferenceSession(plan, options, providers=["CPUExecutionProvider"])
            self.layers = layers(plan) if callable(layers) else layers
            self.given = {i.name: i for i in self.session.get_inputs()}
            self.made = {o.name: o for o in self.session.get_outputs()}
            self.names = [*self.made, *self.given]
            self.num_io_tensors = len(self.names)

        def get_tensor_name(self, k: int) -> str:
            return self.names[k]

        def get_tensor_shape(self, name: str) -> Any:
            return (self.given | self.made)[name].shape

        def get_tensor_dtype(self, name: str) -> np.dtype[Any]:
            kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
            own = kinds[(self.given | self.made)[name].type]
            return np.dtype(np.float16 if name in half else np.int32 if name in narrow else own)

        def get_tensor_mode(self, name: str) -> Any:
            return modes.INPUT if name in self.given else modes.OUTPUT

        def create_execution_context(self) -> Context:
            return Context(self)

        def create_engine_inspector(self) -> Any:
            return SimpleNamespace(get_engine_information=lambda _format: self.layers)

    class Context:
        profiler: Any = None

        def __init__(self, engine: Engine) -> None:
            self.engine, self.places = engine, {}

        def set_tensor_address(self, name: str, place: int) -> None:
            self.places[name] = place

        def execute_async_v3(self, stream: int) -> bool:
            assert stream == 77
            if driver.recording is not None:
                driver.recording.append(self._run)
            else:
                self._run()
            return True

        def _array(self, name: str) -> np.ndarray:
            shape, kind = tuple(self.engine.get_tensor_shape(name)), self.engine.get_tensor_dtype(name)
            size = int(np.prod(shape)) * kind.itemsize
            return np.frombuffer((ctypes.c_char * size).from_address(self.places[name]), kind).reshape(shape)

        def _run(self) -> None:
            given = {n: self._array(n).astype(np.float32) for n in self.engine.given}
            for name, value in zip(self.engine.made, self.engine.session.run(None, given), strict=True):
                self._array(name)[...] = 0 if os.environ.get("FAKE_TRT_DO") == "wrong" else value
            if self.profiler:
                for k, layer in enumerate(json.loads(self.engine.layers)["Layers"]):
                    self.profiler.report_layer_time(layer["Name"], float(k + 1))

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if plan == b"foreign":
                self.logger.log(
                    ILogger.WARNING, "Using an engine plan file across different models of devices"
                )
                self.logger.log(ILogger.ERROR, "Version tag does not match")
                return None
            return Engine(plan)

    return SimpleNamespace(
        ILogger=ILogger, Runtime=Runtime, init_libnvinfer_plugins=lambda _logger, _space: True, TensorIOMode=modes,
        nptype=lambda kind: kind, IProfiler=type("IProfiler", (), {"__init__": lambda _self: None}),
        LayerInformationFormat=SimpleNamespace(JSON=1),
    )  # fmt: skip


def layers_of(plan: bytes) -> str:
    """Return what an inspector says of an engine that runs each layer in the type its file gives it.

    With $FAKE_TRT_DO=float it says float32 of all, as builds that fall back silently do.
    """
    import onnx

    model = onnx.load_from_string(plan)
    makers = {o: n.op_type for n in model.graph.node for o in n.output}
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    rows = []
    for node in model.graph.node:
        if node.op_type not in {"Conv", "Gemm", "MatMul", "Sigmoid", "Mul", "Concat"}:
            continue
        stored = next((kinds[i] for i in node.input if i in kinds), 0)
        word = "Half" if stored == onnx.TensorProto.FLOAT16 else "Float"
        if all(makers.get(i) == "DequantizeLinear" for i in node.input[:2]):
            word = "Int8"
        if os.environ.get("FAKE_TRT_DO") == "float":
            word = "Float"
        tensor = {"Name": node.input[0], "Format/Datatype": word}
        said = f"[ONNX Layer: {node.name}]"
        rows.append(
            {
                "Name": node.name,
                "LayerType": node.op_type,
                "Inputs": [tensor],
                "Outputs": [],
                "Metadata": said,
            }
        )
    return json.dumps({"Layers": rows, "Bindings": []})
