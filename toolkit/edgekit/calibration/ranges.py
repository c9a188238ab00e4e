"""Observe the value range of every activation over calibration samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Smallest and largest value of each tensor in each sample: two (samples,) arrays by name."""

    low: dict[str, NDArray[np.float32]]
    high: dict[str, NDArray[np.float32]]

    def over_all(self) -> dict[str, tuple[float, float]]:
        """Return the extremes over all samples."""
        return {n: (float(self.low[n].min()), float(self.high[n].max())) for n in self.low}

    def typical(self) -> dict[str, tuple[float, float]]:
        """Return the means of the samples' extremes: single outliers do not widen the range."""
        return {n: (float(self.low[n].mean()), float(self.high[n].mean())) for n in self.low}


def observe(model: Any, tensors: list[str], samples: Iterable[Arrays]) -> Ranges:
    """Return the ranges of `tensors` over the samples; reductions run inside the graph.

    Args:
        model: A float ModelProto; left as it is.
        tensors: Names of float tensors in it.
        samples: Inputs by name, one mapping a sample.
    """
    ort = need("onnxruntime", extra="host", why="calibrate")
    watched = _with_reductions(model, tensors)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [f"{n}::{end}" for end in ("low", "high") for n in tensors]
    rows = [np.array(session.run(names, dict(s)), np.float32).reshape(2, -1) for s in samples]
    table = np.stack(rows, 1)
    low = {n: table[0, :, k] for k, n in enumerate(tensors)}
    high = {n: table[1, :, k] for k, n in enumerate(tensors)}
    return Ranges(low=low, high=high)


def _with_reductions(model: Any, tensors: list[str]) -> Any:
    onnx = need("onnx", extra="host")
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for end, op in (("low", "ReduceMin"), ("high", "ReduceMax")):
        for name in tensors:
            out = f"{name}::{end}"
            watched.graph.node.append(onnx.helper.make_node(op, [name], [out], keepdims=0))
            watched.graph.output.append(onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, []))
    return watched
