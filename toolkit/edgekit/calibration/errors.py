"""Say how much output error each layer causes when it alone is quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need
from edgekit.core.watch import steps

Arrays = Mapping[str, NDArray[Any]]


def alone_errors(
    model: Any,
    layers: Sequence[str],
    write_alone: Callable[[str], Any],
    samples: Iterable[Arrays],
) -> dict[str, float]:
    """Return each layer's output error relative to the float outputs, no labels needed.

    Args:
        model: The float ModelProto.
        layers: Names of the layers to try.
        write_alone: Gives the ModelProto in which one named layer alone is quantized.
        samples: Inputs by name, one mapping a sample; all are kept in memory.
    """
    given = [dict(s) for s in samples]
    wanted = _outputs(model, given)
    norms = [[float(np.linalg.norm(o)) or 1.0 for o in row] for row in wanted]
    found = {}
    for layer in steps("ranking layers", layers, len(layers)):
        errors = []
        for row, ideal, norm in zip(_outputs(write_alone(layer), given), wanted, norms, strict=True):
            errors.append(
                max(float(np.linalg.norm(a - b)) / n for a, b, n in zip(row, ideal, norm, strict=True))
            )
        found[layer] = float(np.mean(errors))
    return found


def output_error(model: Any, other: Any, samples: Iterable[Arrays]) -> float:
    """Return the mean relative squared error of another graph's outputs against those of a float one, no labels needed.

    Args:
        model: The float ModelProto.
        other: A ModelProto with the same inputs and outputs.
        samples: Inputs by name, one mapping a sample; all are kept in memory.
    """
    given = [dict(s) for s in samples]
    found = [
        max(
            float(np.sum((a - b) ** 2)) / (float(np.sum(b**2)) or 1.0)
            for a, b in zip(row, ideal, strict=True)
        )
        for row, ideal in zip(_outputs(other, given), _outputs(model, given), strict=True)
    ]
    return float(np.mean(found))


def _outputs(model: Any, samples: Sequence[dict[str, NDArray[Any]]]) -> list[list[NDArray[Any]]]:
    ort = need("onnxruntime", extra="host", why="rank layers")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(None, s) for s in samples]
