"""The 2:4 pattern: of four neighbours along the input channels at most two are not zero.

Ampere's and later sparse tensor cores skip the zeros, Orin's GPU and DLA among them. Pool and Yu, "Channel
permutations for N:M sparsity" (2021), section 2; NVIDIA's "Accelerating sparse deep neural networks" (2021).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.graph.onnx_file import arrays_of

GROUP, KEPT = 4, 2


def input_axis(node: Any) -> int:
    """Return the axis of a weighted layer's weight that runs over its input channels."""
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 1 if node.op_type == "Conv" or transposed else 0


def mask_2_4(weight: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """Return which values stay: the two largest of each four along an axis whose length is a multiple of 4."""
    rows = np.moveaxis(np.abs(weight), axis, -1)
    groups = rows.reshape(-1, GROUP)
    order = np.argsort(-groups, axis=1, kind="stable")
    kept = np.zeros(groups.shape, bool)
    np.put_along_axis(kept, order[:, :KEPT], True, axis=1)  # noqa: FBT003 - the value
    return np.moveaxis(kept.reshape(rows.shape), -1, axis)


def is_2_4(weight: NDArray[Any], axis: int) -> bool:
    """Return whether a weight has the pattern; one that is zero throughout counts."""
    if weight.ndim < 2 or weight.shape[axis] % GROUP:
        return False
    groups = np.moveaxis(weight, axis, -1).reshape(-1, GROUP)
    return bool((np.count_nonzero(groups, axis=1) <= KEPT).all())


def prunable(model: Any) -> list[Any]:
    """Return the weighted layers whose input channels come in fours; grouped convolutions have too few."""
    arrays = arrays_of(model)
    found = []
    for node in model.graph.node:
        weight = (
            arrays.get(node.input[1])
            if node.op_type in {"Conv", "Gemm", "MatMul"} and len(node.input) > 1
            else None
        )
        if (
            weight is not None
            and weight.ndim == (4 if node.op_type == "Conv" else 2)
            and not weight.shape[input_axis(node)] % GROUP
            and not _grouped(node)
        ):
            found.append(node)
    return found


def sparse_layers(model: Any) -> list[str]:
    """Return the names of the weighted layers whose stored weights have the pattern, through Q and DQ, too."""
    arrays = arrays_of(model)
    made = {o: n for n in model.graph.node for o in n.output}
    found = []
    for node in model.graph.node:
        if node.op_type not in {"Conv", "Gemm", "MatMul"} or len(node.input) < 2 or _grouped(node):
            continue
        name = node.input[1]
        while name in made and made[name].op_type in {"QuantizeLinear", "DequantizeLinear", "Cast"}:
            name = made[name].input[0]
        if name in arrays and is_2_4(arrays[name], input_axis(node)):
            found.append(node.name)
    return found


def _grouped(node: Any) -> bool:
    return any(a.name == "group" and a.i > 1 for a in node.attribute)
