"""Fit the weights that pruning leaves to what the layer gave before, on calibration samples.

Each output channel is a least-squares problem of its own: the remaining weights and the bias that come nearest to
the dense layer's outputs on the inputs it saw. Hubara et al., "Accelerated sparse neural training" (2021),
section 4 (AdaPrune). Which weights remain is chosen by |weight| x norm of its input: Sun et al., "A simple and
effective pruning approach for large language models" (2023), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need
from edgekit.core.watch import steps
from edgekit.graph.onnx_file import arrays_of
from edgekit.graph.sparsity import input_axis

Arrays = Mapping[str, NDArray[Any]]
Mask = Callable[[NDArray[Any], int], NDArray[np.bool_]]

# Positions drawn of each sample, and layers whose inputs are held at once.
_POSITIONS, _AT_ONCE = 512, 6
# Of the mean square of the inputs: keeps directions that the samples never showed as they were.
_RIDGE = 1e-2


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """A layer's new weight and bias, in their stored shapes; no bias where it has none."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None


def refit(
    model: Any, layers: Sequence[str], samples: Iterable[Arrays], mask: Mask, *, seed: int
) -> dict[str, Refitted]:
    """Return each layer, pruned by `mask` and fitted.

    Args:
        model: A float ModelProto with named nodes.
        layers: Names of Conv (two-dimensional, one group), Gemm or MatMul nodes.
        samples: Inputs by name, one mapping a sample; all are kept in memory.
        mask: Gives, for importances in the weight's shape and the axis of its input channels, what stays.
        seed: Of the positions drawn.
    """
    given = [dict(s) for s in samples]
    nodes = {n.name: n for n in model.graph.node if n.name in set(layers)}
    arrays, rng = arrays_of(model), np.random.default_rng(seed)
    found: dict[str, Refitted] = {}
    for start in steps(
        "fitting what pruning leaves", range(0, len(layers), _AT_ONCE), -(-len(layers) // _AT_ONCE)
    ):
        some = [nodes[n] for n in layers[start : start + _AT_ONCE]]
        grams: dict[str, Any] = {n.name: 0.0 for n in some}
        for seen in _inputs_of(model, [n.input[0] for n in some], given):
            for node in some:
                rows = _rows(node, seen[node.input[0]], arrays[node.input[1]], rng)
                grams[node.name] = grams[node.name] + rows.T @ rows
        for node in some:
            found[node.name] = _fitted(node, arrays, grams[node.name], mask)
    return found


def _inputs_of(
    model: Any, tensors: list[str], samples: Sequence[Arrays]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Give what the layers read, sample by sample."""
    onnx = need("onnx", extra="host")
    ort = need("onnxruntime", extra="host", why="calibrate")
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    own = {i.name for i in model.graph.input}
    names = [n for n in dict.fromkeys(tensors) if n not in own]
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = (
        ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
        if names
        else None
    )
    for sample in samples:
        made = session.run(names, sample) if session else []
        yield {**sample, **dict(zip(names, made, strict=True))}


def _rows(
    node: Any, given: NDArray[Any], weight: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return what a few output positions of a layer read, one row each, with a last column of ones for the bias."""
    if node.op_type == "Conv":
        rows = _patches(node, given, weight.shape[2:], rng)
    else:
        flat = given.reshape(-1, given.shape[-1])
        rows = flat[rng.permutation(len(flat))[:_POSITIONS]]
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1, dtype=np.float64)


def _patches(
    node: Any, given: NDArray[Any], kernel: tuple[int, ...], rng: np.random.Generator
) -> NDArray[Any]:
    """Return patches (positions, channels x kernel) of a 2-D convolution's input (N, C, H, W)."""
    words = {a.name: list(a.ints) for a in node.attribute if a.ints}
    strides, dilations = words.get("strides", [1, 1]), words.get("dilations", [1, 1])
    top, left, bottom, right = words.get("pads", [0, 0, 0, 0])
    padded = np.pad(given, ((0, 0), (0, 0), (top, bottom), (left, right)))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [(padded.shape[2 + a] - spans[a]) // strides[a] + 1 for a in (0, 1)]
    count = min(_POSITIONS, sizes[0] * sizes[1])
    places = rng.permutation(sizes[0] * sizes[1])[:count]
    ys, xs = (places // sizes[1]) * strides[0], (places % sizes[1]) * strides[1]
    down = ys[:, None, None] + np.arange(kernel[0])[None, :, None] * dilations[0]
    across = xs[:, None, None] + np.arange(kernel[1])[None, None, :] * dilations[1]
    # (C, positions, kh, kw) to a row for each position.
    taken: NDArray[Any] = padded[0][:, down, across]
    return taken.transpose(1, 0, 2, 3).reshape(count, -1)


def _fitted(node: Any, arrays: Mapping[str, NDArray[Any]], gram: Any, mask: Mask) -> Refitted:
    """Solve for what stays of each output channel."""
    weight, axis = arrays[node.input[1]], input_axis(node)
    bias = arrays.get(node.input[2]) if len(node.input) > 2 else None
    by_output = node.op_type == "Conv" or axis == 1
    rows = (weight.reshape(len(weight), -1) if by_output else weight.T).astype(np.float64)
    energy = np.sqrt(np.maximum(np.diag(gram)[:-1], 0.0))
    important = np.abs(rows) * energy
    shaped = (important if by_output else important.T).reshape(weight.shape)
    stays = mask(shaped, axis)
    kept = stays.reshape(len(weight), -1) if by_output else stays.T
    ridge = _RIDGE * float(np.trace(gram[:-1, :-1])) / max(len(gram) - 1, 1) + 1e-12
    done, shift = np.zeros_like(rows), np.zeros(len(rows))
    for k, (row, keep) in enumerate(zip(rows, kept, strict=True)):
        # Without a bias of its own a layer gets none: the last column stays out.
        used = np.append(np.flatnonzero(keep), [len(row)] if bias is not None else []).astype(int)
        before = np.append(row, 0.0)
        wanted = gram[used] @ before + ridge * before[used]
        solved = np.linalg.solve(gram[np.ix_(used, used)] + ridge * np.eye(len(used)), wanted)
        if bias is not None:
            shift[k], solved = solved[-1], solved[:-1]
        done[k, keep] = solved
    shaped = done if by_output else done.T
    new_bias = None if bias is None else (bias + shift).astype(np.float32)
    return Refitted(weight=shaped.reshape(weight.shape).astype(np.float32), bias=new_bias)
