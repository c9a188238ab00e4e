"""Export a torch module to ONNX, and prove in float32 that both give the same."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import ContractError
from edgekit.core.lazy import need

# Relative to the largest output. Float32 convolutions reordered by another engine stay below 1e-4.
TOLERANCE = 1e-3


def to_onnx(
    module: Any, shape: Sequence[int], *, opset: int, input_name: str = "images", free_size: bool = False
) -> Any:
    """Return the ModelProto of `module` traced on zeros of `shape`.

    Args:
        module: A torch module in eval mode, float32.
        shape: Of its one input, batch first.
        opset: ONNX opset.
        input_name: Name of the input.
        free_size: Leave height and width of the input free.
    """
    torch, onnx = need("torch", extra="train"), need("onnx", extra="host")
    example, buffer = torch.zeros(*shape), io.BytesIO()
    with torch.no_grad():
        given = module(example)
    count = len(given) if isinstance(given, list | tuple) else 1
    free = {input_name: {2: "height", 3: "width"}} if free_size else None
    trace(module, {input_name: example}, [f"output{k}" for k in range(count)], buffer, opset=opset, free=free)
    return onnx.load_from_string(buffer.getvalue())


def trace(
    module: Any, inputs: Mapping[str, Any], outputs: Sequence[str], where: Any, *, opset: int, free: Mapping[str, Any] | None = None
) -> None:  # fmt: skip
    """Write a torch module as ONNX into a buffer or, where weights are above 2 GiB beside it, a file's path.

    Args:
        module: In eval mode.
        inputs: Examples by name, in the module's order.
        outputs: Their names.
        where: A binary buffer, or a path as text.
        opset: Of ONNX.
        free: Axes without a fixed size, as torch names them.
    """
    torch = need("torch", extra="train")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(inputs.values()), where, opset_version=opset, dynamo=False, input_names=list(inputs),
            output_names=list(outputs), dynamic_axes=free,
        )  # fmt: skip


def check_parity(module: Any, model: Any, samples: Sequence[NDArray[np.float32]], *, where: str) -> float:
    """Return the largest relative error of the ONNX model against torch over real samples.

    Raises:
        ContractError: It is above 1e-3, or an output is not finite.
    """
    torch, ort = need("torch", extra="train"), need("onnxruntime", extra="host")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name, worst = session.get_inputs()[0].name, 0.0
    for sample in samples:
        with torch.no_grad():
            given = module(torch.from_numpy(sample))
        wanted = [t.numpy() for t in (given if isinstance(given, list | tuple) else [given])]
        for a, b in zip(wanted, session.run(None, {name: sample}), strict=True):
            worst = max(worst, float(np.abs(a - b).max()) / max(float(np.abs(a).max()), 1e-12))
    return within(worst, where=where)


def within(error: float, *, where: str) -> float:
    """Return an error that is within the tolerance.

    Raises:
        ContractError: It is not.
    """
    if not error <= TOLERANCE:
        raise ContractError(
            f"{where}: the exported ONNX differs from torch by {error:.2e} of the largest output",
            hint=f"{TOLERANCE:g} is allowed. Report it with the model's architecture.",
        )
    return error
