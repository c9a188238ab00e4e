"""What every session of onnxruntime shares, whatever provider computes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.protocol import Arrays
from edgekit.core.lazy import need
from edgekit.core.records import LayerRun

CPU = "CPUExecutionProvider"


class OrtSession:
    """An open session: outputs of known shape live in one place."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._names = [o.name for o in session.get_outputs()]
        self._kept: list[Any] = []
        # Outputs of known shape live in one place: new ones each run cost page faults, 8.7 MB a frame on a
        # detector of 34,000 anchors.
        self._own = _output_arrays(session.get_outputs())

    def __enter__(self) -> OrtSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.clear()
        self._own.clear()
        del self._binding, self._session

    def infer(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Return the outputs for these inputs, in arrays of their own."""
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))

    def look(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Return the outputs, in arrays that the next call writes over."""
        if not self._own:
            return self.infer(inputs)
        self.stage(inputs)
        self.run_staged()
        return dict(self._own)

    def stage(self, inputs: Arrays) -> None:
        """Put inputs and outputs in place for `run_staged`."""
        self._binding.clear_binding_inputs()
        self._kept = [np.ascontiguousarray(v) for v in inputs.values()]
        for name, value in zip(inputs, self._kept, strict=True):
            self._binding.bind_cpu_input(name, value)
        for name in self._names:
            self._bind_output(name)

    def _bind_output(self, name: str) -> None:
        if name in self._own:
            array = self._own[name]
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        else:
            self._binding.bind_output(name)

    def run_staged(self) -> None:
        """Run on what was staged."""
        self._session.run_with_iobinding(self._binding)


def _output_arrays(outputs: Any) -> dict[str, NDArray[np.generic]]:
    """Return an array for each output, nothing where a shape or type is not known beforehand."""
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
    known = all(o.type in kinds and all(isinstance(d, int) for d in o.shape) for o in outputs)
    return {o.name: np.zeros(o.shape, kinds[o.type]) for o in outputs} if known else {}


def engine_errors() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises for a model it cannot run."""
    state = need("onnxruntime.capi.onnxruntime_pybind11_state")
    names = (
        "Fail",
        "InvalidGraph",
        "InvalidArgument",
        "InvalidProtobuf",
        "NotImplemented",
        "RuntimeException",
    )
    own = (getattr(state, n) for n in (*names, "NoSuchFile") if hasattr(state, n))
    return (RuntimeError, ValueError, *own)


def first_line(error: Exception) -> str:
    """Return the first line of what an engine says."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


_TOKEN = re.compile(r"_token_\d+$")


def layers_of(events: list[dict[str, Any]]) -> tuple[LayerRun, ...]:
    """Fold profiler events into one row a node; the first run of each is warm-up and left out."""
    spent: dict[str, list[float]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") != "Node" or not str(event.get("name", "")).endswith("_kernel_time"):
            continue
        name = event["name"].removesuffix("_kernel_time")
        spent.setdefault(name, []).append(float(event["dur"]))
        facts[name] = event["args"]
    medians = {n: float(np.median(v[1:] or v)) for n, v in spent.items()}
    total = sum(medians.values()) or 1.0
    return tuple(
        LayerRun(
            name=name,
            op=facts[name].get("op_name", "?"),
            dtype=_dtype(facts[name]),
            unit="CPU" if facts[name].get("provider") == CPU else str(facts[name].get("provider")),
            share=medians[name] / total,
            # Where it moves channels last, onnxruntime calls the new node by the old one's name and a number.
            covers=tuple(dict.fromkeys((name, _TOKEN.sub("", name)))),
        )
        for name in spent
    )


def _dtype(args: dict[str, Any]) -> str:
    """Return the dtype a node computes in: that of its first input."""
    given = args.get("input_type_shape") or args.get("output_type_shape") or []
    found = next(iter(given[0]), "?") if given else "?"
    words = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}
    return words.get(found, found)
