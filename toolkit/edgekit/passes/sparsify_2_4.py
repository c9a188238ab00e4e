"""Set two of each four weights to zero where accuracy allows it: Ampere's sparse tensor cores skip them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgekit.calibration.refit import Refitted, refit
from edgekit.calibration.search import fewest
from edgekit.core.digest import digest_file
from edgekit.core.lazy import need
from edgekit.core.records import Graph, Network
from edgekit.graph.onnx_file import arrays_of, read_onnx, save_onnx
from edgekit.graph.sparsity import input_axis, mask_2_4, prunable
from edgekit.passes.protocol import Change, Context, Pass

_ACCURACY_RUNS = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of sparsify-2-4.

    Attributes:
        max_drop: Largest accuracy drop on unseen training images, a share from 0 to 1; the fewest layers
            that suffice keep all their weights.
        refit: Fit the weights that stay to the layer's outputs on calibration samples; without it they keep
            their values, and few layers pass as a rule.
        samples: Calibration samples for that.
    """

    max_drop: float = 0.01
    refit: bool = True
    samples: int = 24

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 0.5:
            raise ValueError("max_drop should be a share from 0 to 0.5; 0.01 is one point")
        if not 1 <= self.samples <= 256:
            raise ValueError("samples should be 1 to 256; 24 is enough")


class Sparsify:
    """Pruning in the 2:4 pattern, layer by layer, the rest fitted on samples, guarded by accuracy."""

    works_on = "onnx"
    settings = Settings
    needs_samples = True
    recodes = False
    summary = "2:4 sparse weights for Ampere and later (Orin), where accuracy allows it"

    def run(self, network: Network, settings: Settings, context: Context) -> Change:
        """Write the graph with as many layers pruned as the guard allows; unchanged where it allows none."""
        model = read_onnx(network.main.path)
        pruned = _pruned(model, settings, context)
        layers = _ranked(model, pruned)
        facts: dict[str, Any] = {
            "layers": len(layers),
            "max_drop": settings.max_drop,
            "refit": settings.refit,
            "sparse_layers": 0,
        }
        if not layers:
            return Change(
                network=network, changed=False, facts={**facts, "state": "no layer has channels in fours"}
            )
        if context.score is None:
            why = f"not judged: {context.why_no_score}; nothing was pruned"
            return Change(network=network, changed=False, facts={**facts, "state": why})
        floor = context.score((network, None)) - settings.max_drop
        runs: dict[int, float] = {}

        def tried(exempted: int) -> float:
            if exempted not in runs:
                some = {n: pruned[n] for n in layers[exempted:]}
                candidate = _written(network, model, some, context, f"try{exempted}")
                assert context.score
                runs[exempted] = context.score((candidate, None))
            return runs[exempted]

        count = 0 if tried(0) >= floor else fewest(tried, floor, len(layers), _ACCURACY_RUNS)
        facts |= {"float": floor + settings.max_drop, "runs": {str(k): v for k, v in sorted(runs.items())}}
        if count is None or count == len(layers):
            state = "refused: accuracy allows no layer to be pruned; training with the pattern may"
            return Change(network=network, changed=False, facts={**facts, "state": state})
        done = _written(network, model, {n: pruned[n] for n in layers[count:]}, context, "main")
        facts |= {
            "state": "held",
            "kept": runs[count],
            "sparse_layers": len(layers) - count,
            "exempted": layers[:count],
        }
        return Change(network=done, changed=done.main.sha256 != network.main.sha256, facts=facts, lossy=True)


def _pruned(model: Any, settings: Settings, context: Context) -> dict[str, Refitted]:
    """Return every layer that can be pruned, pruned, and fitted where that was asked for and samples are there."""
    nodes = prunable(model)
    if settings.refit and context.samples and context.score and nodes:
        some = itertools.islice(context.samples(), settings.samples)
        return refit(model, [n.name for n in nodes], some, mask_2_4, seed=context.seed)
    arrays, found = arrays_of(model), {}
    for node in nodes:
        weight = arrays[node.input[1]]
        kept = np.where(mask_2_4(weight, input_axis(node)), weight, 0).astype(weight.dtype)
        found[node.name] = Refitted(weight=kept, bias=None)
    return found


def _ranked(model: Any, pruned: Mapping[str, Refitted]) -> list[str]:
    """Return the layers by how far pruning moves their weights, relative to their length, worst first."""
    arrays = arrays_of(model)
    moved = {}
    for node in (n for n in model.graph.node if n.name in pruned):
        weight = arrays[node.input[1]].astype(np.float64)
        moved[node.name] = float(
            ((weight - pruned[node.name].weight) ** 2).sum() / max((weight**2).sum(), 1e-30)
        )
    return sorted(moved, key=lambda name: (-moved[name], name))


def _written(
    network: Network, model: Any, pruned: Mapping[str, Refitted], context: Context, name: str
) -> Network:
    """Return the network with these layers pruned, its graph written into the pass's folder."""
    onnx, numpy_helper = need("onnx", extra="host"), need("onnx.numpy_helper", extra="host")
    done = onnx.ModelProto()
    done.CopyFrom(model)
    new: dict[str, Any] = {}
    for node in (n for n in done.graph.node if n.name in pruned):
        one = pruned[node.name]
        new[node.input[1]] = one.weight
        if one.bias is not None:
            new[node.input[2]] = one.bias
    for stored in done.graph.initializer:
        if stored.name in new:
            stored.CopyFrom(numpy_helper.from_array(new[stored.name], stored.name))
    path = context.out / f"{name}.onnx"
    save_onnx(done, path)
    graphs = {**network.graphs, "main": Graph(path=path, sha256=digest_file(path))}
    return replace(network, graphs=graphs)


PLUGIN: Pass = Sparsify()
