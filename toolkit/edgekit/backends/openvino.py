"""Run OpenVINO IR on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.protocol import Arrays, Backend, Session
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import have, need
from edgekit.core.records import Artifact, LayerRun


class _Session:
    def __init__(self, ov: Any, compiled: Any) -> None:
        self._ov, self._compiled = ov, compiled
        self._request = compiled.create_infer_request()
        self._names = [
            next(iter(sorted(o.get_names())), f"output{k}") for k, o in enumerate(compiled.outputs)
        ]
        self._kept: list[Any] = []

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.clear()
        del self._request, self._compiled

    def infer(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        return {n: v.copy() for n, v in self.look(inputs).items()}

    def look(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        self.stage(inputs)
        self.run_staged()
        return {n: self._request.get_output_tensor(i).data for i, n in enumerate(self._names)}

    def stage(self, inputs: Arrays) -> None:
        self._kept = [np.ascontiguousarray(v) for v in inputs.values()]
        for name, value in zip(inputs, self._kept, strict=True):
            self._request.set_tensor(name, self._ov.Tensor(value, shared_memory=True))

    def run_staged(self) -> None:
        self._request.start_async()
        self._request.wait()


class OpenVino:
    """OpenVINO's CPU plugin, one stream, latency hint."""

    name = "openvino"
    package = "openvino"

    def open(self, artifact: Artifact) -> Session:
        """Return a session with the artifact's threads and inference precision."""
        ov = need("openvino", extra="host", why=f"run {artifact.main.name}")
        return _Session(ov, self._compile(ov, artifact, profile=False))

    def _compile(self, ov: Any, artifact: Artifact, *, profile: bool) -> Any:
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": str(artifact.options.get("inference_precision", "f32")),
        }
        if threads := int(artifact.options.get("threads", 0)):
            config["INFERENCE_NUM_THREADS"] = threads
        if profile:
            config["PERF_COUNT"] = True
        try:
            core = ov.Core()
            return core.compile_model(core.read_model(str(artifact.main)), "CPU", config)
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1][:300]
            raise RecipeError(
                f"{artifact.main}: openvino {ov.__version__} cannot read it: {line}",
                hint="Compile the bundle again with this version of openvino.",
            ) from error

    def receipt(self, artifact: Artifact, inputs: Arrays) -> tuple[LayerRun, ...]:
        """Return the execution graph's layers with the dtype and time the plugin reports."""
        ov = need("openvino", extra="host", why="profile")
        compiled = self._compile(ov, artifact, profile=True)
        request = compiled.create_infer_request()
        spent: dict[str, list[float]] = {}
        for _ in range(6):
            request.infer(dict(inputs))
            for info in request.get_profiling_info():
                spent.setdefault(info.node_name, []).append(info.real_time.total_seconds())
        return _layers(compiled.get_runtime_model(), spent)

    def refusal(self, machine: Mapping[str, object]) -> str:
        """Return why not: needs the package and an x86-64 or arm64 CPU."""
        if not have("openvino"):
            return "openvino is not installed"
        arch = str(machine.get("arch", ""))
        return "" if arch in {"x86_64", "aarch64"} else f"openvino has no CPU plugin for {arch}"


_WORDS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}


def _layers(model: Any, spent: dict[str, list[float]]) -> tuple[LayerRun, ...]:
    rows = []
    medians = {n: float(np.median(v[1:] or v)) for n, v in spent.items()}
    total = sum(medians.values()) or 1.0
    for op in model.get_ordered_ops():
        info = {k: op.rt_info[k].astype(str) for k in op.rt_info} if op.rt_info else {}
        kind = info.get("layerType", op.get_type_name())
        if kind in {"Const", "Input", "Output"}:
            continue
        name = op.get_friendly_name()
        precision = info.get("runtimePrecision", "?")
        covers = tuple(n for n in info.get("originalLayersNames", "").split(",") if n) or (name,)
        rows.append(
            LayerRun(
                name=name,
                op=kind,
                dtype=_WORDS.get(precision.lower(), precision.lower()),
                unit="CPU",
                share=medians.get(name, 0.0) / total,
                covers=covers,
            )
        )
    return tuple(rows)


PLUGIN: Backend = OpenVino()
