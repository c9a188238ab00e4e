"""Run TensorRT engines that were built on this board."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import build_engine, engines, providers
from edgekit.backends.cuda import Cuda, Memory
from edgekit.backends.protocol import Arrays, Backend, Session
from edgekit.backends.trt_inspector import layers_of
from edgekit.core.errors import ContractError, MissingError, ResourceError
from edgekit.core.lazy import have, need
from edgekit.core.records import Artifact, Contract, LayerRun

_GRAPH_RUNS = 20
_RECEIPT_RUNS = 6
_TO_BUILD = "Run: edgekit engine build <bundle>, once, on this board."


class _Session:
    """One engine with its buffers; everything is allocated once."""

    def __init__(self, plan: bytes, contract: Contract, trt: Any, cuda: Cuda) -> None:
        self._cuda, self._trt, self._contract = cuda, trt, contract
        self._logger, self._heard = build_engine.logger_of(trt)
        build_engine.register_plugins(trt, self._logger)
        self._runtime = trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise ContractError(
                f"TensorRT cannot read the engine: {build_engine.first_of(self._heard)}",
                hint="It may be of another version, or memory is short: edgekit engine clear, then edgekit engine build <bundle>.",
            )
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise ResourceError(
                f"TensorRT cannot start the engine: {build_engine.first_of(self._heard)}",
                hint="Free memory on the board, or use a smaller model.",
            )
        self._inputs: dict[str, Memory] = {}
        self._outputs: dict[str, Memory] = {}
        for k in range(self.engine.num_io_tensors):
            self._bind(self.engine.get_tensor_name(k))
        self._check()
        self._graph: ctypes.c_void_p | None = None
        self.graph_gain = self._choose_graph()

    def _bind(self, name: str) -> None:
        shape = tuple(int(d) for d in self.engine.get_tensor_shape(name))
        one = self._cuda.memory(shape, np.dtype(self._trt.nptype(self.engine.get_tensor_dtype(name))))
        self.context.set_tensor_address(name, one.device)
        given = self.engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
        (self._inputs if given else self._outputs)[name] = one

    def _check(self) -> None:
        """Refuse an engine whose inputs and outputs are not the contract's."""
        for specs, found in ((self._contract.inputs, self._inputs), (self._contract.outputs, self._outputs)):
            wanted = {s.name: s.shape for s in specs}
            have = {n: m.host.shape for n, m in found.items()}
            if wanted != have:
                raise ContractError(f"the engine has {have}, the contract {wanted}", hint=_TO_BUILD)

    def _choose_graph(self) -> float:
        """Capture a CUDA graph and keep it where it is faster; return how many times as fast it is."""
        self._enqueue()
        self._cuda.wait()
        graph = self._cuda.captured(self._enqueue)
        if graph is None:
            return 0.0
        plain = self._timed(self._enqueue)
        launched = self._timed(lambda: self._cuda.launch(graph))
        self._graph = graph if launched < plain else None
        return plain / max(launched, 1e-9)

    def _timed(self, work: Callable[[], object]) -> float:
        spent = []
        for _ in range(_GRAPH_RUNS):
            begun = time.perf_counter()
            work()
            self._cuda.wait()
            spent.append(time.perf_counter() - begun)
        return float(np.median(spent))

    def _enqueue(self) -> bool:
        return bool(self.context.execute_async_v3(self._cuda.stream))

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._inputs.clear()
        self._outputs.clear()
        self._cuda.use()
        del self.context, self.engine, self._runtime
        self._cuda.close()

    def stage(self, inputs: Arrays) -> None:
        # The driver's context belongs to a thread, and an app may load in one and run in another.
        self._cuda.use()
        for name, value in inputs.items():
            one = self._inputs[name]
            np.copyto(one.host, value, casting="same_kind")
            self._cuda.upload(one)
        self._cuda.wait()

    def run_staged(self) -> None:
        self._cuda.use()
        if self._graph is not None:
            self._cuda.launch(self._graph)
        elif not self._enqueue():
            raise ContractError(
                "TensorRT refused to run the engine", hint="See the board's system log (dmesg)."
            )
        self._cuda.wait()

    def look(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        self.stage(inputs)
        self.run_staged()
        for one in self._outputs.values():
            self._cuda.download(one)
        self._cuda.wait()
        # TensorRT 8 has no INT64: what the contract calls so is widened again.
        return {
            s.name: self._outputs[s.name].host.astype(s.dtype, copy=False) for s in self._contract.outputs
        }

    def profiled(self, inputs: Arrays) -> tuple[LayerRun, ...]:
        """Return each layer as it ran, timed by TensorRT's profiler over a few runs."""
        times: dict[str, list[float]] = {}
        trt = self._trt

        class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, name: str, ms: float) -> None:
                times.setdefault(name, []).append(ms)

        self.stage(inputs)
        self.context.profiler = Profiler()
        for _ in range(_RECEIPT_RUNS):
            # A captured graph would run beside the profiler.
            self._enqueue()
            self._cuda.wait()
        text = self.engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        # The first run is warm-up.
        return layers_of(text, {n: float(np.median(v[1:] or v)) for n, v in times.items()})

    def infer(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        return {n: np.array(v) for n, v in self.look(inputs).items()}


class TensorRt:
    """TensorRT of the board's own system, on engines in this user's cache."""

    name = "tensorrt"
    package = "tensorrt"

    def open(self, artifact: Artifact) -> Session:
        """Return a session on the engine that was built from the artifact's files on this board.

        Raises:
            MissingError: No driver, no TensorRT, or no engine was built yet.
            ContractError: The engine does not fit this board or the contract.
        """
        found = built_for(artifact.folder)
        if found.provider:
            return providers.opened(*_of_provider(artifact, found), half=found.precision != "fp32")
        return opened(found.plan.read_bytes(), artifact.contract)

    def receipt(self, artifact: Artifact, inputs: Arrays) -> tuple[LayerRun, ...]:
        """Run under TensorRT's own profiler and return each layer with precision, unit and share of time."""
        found = built_for(artifact.folder)
        if found.provider:
            return providers.receipt(
                *_of_provider(artifact, found), half=found.precision != "fp32", inputs=inputs
            )
        session = opened(found.plan.read_bytes(), artifact.contract)
        with session:
            return session.profiled(inputs)

    def refusal(self, machine: Mapping[str, object]) -> str:
        """Return why not: no TensorRT for this Python, or no driver."""
        del machine
        try:
            build_engine.probe()
        except build_engine.BuildError as error:
            return f"TensorRT engines are built on the device; here {error}"
        return "" if have("tensorrt") else "this Python has no tensorrt (it comes with JetPack)"


def _of_provider(artifact: Artifact, found: engines.Engine) -> tuple[Path, str, Path]:
    model = artifact.folder / str(engines.builds_in(artifact.folder)[-1]["model"])
    return model, found.provider, found.folder / "cache"


def built_for(folder: Path) -> engines.Engine:
    """Return the engine of a variant's folder from the cache.

    Raises:
        MissingError: None was built on this board yet.
    """
    if found := engines.found_for(folder):
        return found
    raise MissingError(f"{folder}: no TensorRT engine was built on this board yet", hint=_TO_BUILD)


def opened(plan: bytes, contract: Contract, *, trt: Any = None, cuda: Cuda | None = None) -> _Session:
    """Return a session on an engine's bytes; the driver is asked before TensorRT is touched."""
    module = trt or need("tensorrt", why="run an engine")
    own = cuda or Cuda()
    try:
        return _Session(plan, contract, module, own)
    except BaseException:
        own.close()
        raise


PLUGIN: Backend = TensorRt()
