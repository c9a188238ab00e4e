"""The parts of TensorRT's Python API that edgekit calls, in the shapes of four versions; records every call.

No engine comes out: `build_serialized_network` gives bytes that say what was asked for, or what `engine` makes
of the file. What TensorRT would
do wrong is chosen by $FAKE_TRT_DO: crash, hang, killed, null, refuse, refuse-int8, parse-error, memory-below-<MB>, cache-refused, cache-unreadable; fake_cuda.py knows wrong and float.
"""

from __future__ import annotations

import enum
import json
import os
import signal
import time
from pathlib import Path
from types import ModuleType
from typing import Any


class Calls(list):
    """What was called, in order; written to $FAKE_TRT_LOG after each."""

    def note(self, *what: Any) -> None:
        self.append(list(what))
        if path := os.environ.get("FAKE_TRT_LOG"):
            Path(path).write_text(json.dumps(self))


def install(  # noqa: C901 - one shape, read from top to bottom
    module: ModuleType,
    version: str,
    *,
    flags: str,
    creation: str,
    level: bool,
    calibrator: bool,
    parser_flags: str = "",
    engine: Any = None,
) -> None:
    """Fill a module `tensorrt` with one version's shape."""
    calls = Calls()
    do = os.environ.get("FAKE_TRT_DO", "")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self) -> None:
            pass

    kinds = {
        "BuilderFlag": enum.IntEnum("BuilderFlag", flags, start=0),
        "NetworkDefinitionCreationFlag": enum.IntEnum("NetworkDefinitionCreationFlag", creation, start=0),
        "MemoryPoolType": enum.IntEnum("MemoryPoolType", "WORKSPACE DLA_MANAGED_SRAM", start=0),
        "ProfilingVerbosity": enum.IntEnum("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED", start=0),
        "DeviceType": enum.IntEnum("DeviceType", "GPU DLA", start=0),
        "OnnxParserFlag": enum.IntEnum("OnnxParserFlag", f"NATIVE_INSTANCENORM {parser_flags}", start=0),
    }

    class Layer:
        def __init__(self, name: str) -> None:
            object.__setattr__(self, "name", name)

        def __setattr__(self, word: str, value: Any) -> None:
            calls.note("layer", self.name, word, str(value))

    class Network:
        def __init__(self) -> None:
            self.layers: list[Layer] = []
            self.path, self.kinds = "", []

        @property
        def num_layers(self) -> int:
            return len(self.layers)

        def get_layer(self, k: int) -> Layer:
            return self.layers[k]

    class TimingCache:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def serialize(self) -> bytes:
            return self.data + b"+timed"

    class Config:
        def __init__(self) -> None:
            object.__setattr__(self, "_cache", None)
            object.__setattr__(self, "_monitor", None)
            object.__setattr__(self, "_workspace", 0)
            if level:
                object.__setattr__(self, "builder_optimization_level", 3)

        def __setattr__(self, word: str, value: Any) -> None:
            if word == "builder_optimization_level" and not level:
                raise AttributeError(word)
            if word == "progress_monitor":
                object.__setattr__(self, "_monitor", value)
                return
            if word == "int8_calibrator" and not calibrator:
                raise AttributeError(word)
            shown = (
                value.read_calibration_cache().decode()
                if word == "int8_calibrator"
                else getattr(value, "name", value)
            )
            calls.note("config", word, shown)

        def set_flag(self, flag: Any) -> None:
            calls.note("set_flag", flag.name)

        def set_device_type(self, layer: Any, kind: Any) -> None:
            calls.note("set_device_type", layer.name, kind.name)

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            object.__setattr__(self, "_workspace", size >> 20)
            calls.note("set_memory_pool_limit", pool.name, size)

        def create_timing_cache(self, data: bytes) -> TimingCache | None:
            return None if data and do == "cache-unreadable" else TimingCache(data)

        def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
            assert cache is not None, "TensorRT's binding takes no None"
            taken = not (do == "cache-refused" and cache.data)
            calls.note("set_timing_cache", len(cache.data), ignore_mismatch, taken)
            if taken:
                object.__setattr__(self, "_cache", cache)
            return taken

        def get_timing_cache(self) -> Any:
            return self._cache

    class Builder:
        def __init__(self, logger: Any) -> None:
            if do == "null":
                logger.log(ILogger.WARNING, "Unable to determine GPU memory usage")
                logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self.logger = logger

        def create_network(self, words: int) -> Network:
            named = [f.name for f in kinds["NetworkDefinitionCreationFlag"] if words >> int(f) & 1]
            calls.note("create_network", named)
            return Network()

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network: Network, config: Config) -> Any:
            calls.note("build_serialized_network")
            # Warnings of healthy builds, and what NVIDIA's libraries print on their own.
            self.logger.log(
                ILogger.WARNING, "Skipping tactic 0x3 due to insufficient memory on requested size"
            )
            os.write(2, b"phase build 2 9NvRmMemInitNvmap failed \xff\xfe\n")
            _misbehave(do, config, self.logger)
            int8 = Path(network.path).name == "model.onnx" and "Quantize" in "".join(network.kinds)
            if hasattr(module, "IProgressMonitor"):
                _tell(config._monitor)
            if do == "refuse" or (do == "refuse-int8" and int8):
                self.logger.log(ILogger.WARNING, "Attempting to cast down to INT32.")
                self.logger.log(ILogger.ERROR, "Could not find any implementation for node conv")
                return None
            if do.startswith("memory-below-") and config._workspace > int(do.rpartition("-")[2]):
                self.logger.log(
                    ILogger.ERROR, "Requested amount of GPU memory could not be allocated: OutOfMemory"
                )
                return None
            if engine:
                return engine(network.path)
            return json.dumps({"version": version, "workspace": config._workspace}).encode()

    class OnnxParser:
        num_errors = 1

        def __init__(self, network: Network, logger: Any) -> None:
            self.network = network

        def set_flag(self, flag: Any) -> None:
            calls.note("parser_flag", flag.name)

        def parse_from_file(self, path: str) -> bool:
            calls.note("parse", Path(path).name)
            self.network.path = path
            import onnx

            nodes = onnx.load(path).graph.node
            self.network.layers, self.network.kinds = (
                [Layer(n.name) for n in nodes],
                [n.op_type for n in nodes],
            )
            return do != "parse-error"

        def get_error(self, _k: int) -> str:
            return "In node 3 with name: top: UNSUPPORTED_NODE: K is too large"

    shape = {
        "init_libnvinfer_plugins": lambda _logger, space: calls.note("plugins", space), "__version__": version, "ILogger": ILogger, "Builder": Builder, "OnnxParser": OnnxParser, "float16": "float16",
        "float32": "float32", "int8": "int8", **kinds,
    }  # fmt: skip
    if version.startswith("1"):
        shape["IProgressMonitor"] = type("IProgressMonitor", (), {"__init__": lambda self: None})
    if calibrator:
        shape["IInt8EntropyCalibrator2"] = type(
            "IInt8EntropyCalibrator2", (), {"__init__": lambda self: None}
        )
    vars(module).update(shape)


def _tell(monitor: Any) -> None:
    """Tell progress as TensorRT does: phases in phases, steps from 0."""
    monitor.phase_start("Building the engine", None, 3)
    for step in range(3):
        monitor.phase_start("Computing profile costs", "Building the engine", 2)
        assert monitor.step_complete("Computing profile costs", 1)
        monitor.phase_finish("Computing profile costs")
        assert monitor.step_complete("Building the engine", step)
    monitor.phase_finish("Building the engine")


def _misbehave(do: str, config: Any, _logger: Any) -> None:
    if do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if do == "killed" or (do.startswith("killed-above-") and config._workspace > int(do.rpartition("-")[2])):
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "hang":
        time.sleep(600)
