"""Set two of each four weights to zero where accuracy allows it: Ampere's sparse tensor cores skip them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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
            that suffice keep all their weights. Without fine-tuning few layers pass as a rule.
    """

    max_drop: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 0.5:
            raise ValueError("max_drop should be a share from 0 to 0.5; 0.01 is one point")


class Sparsify:
    """Magnitude pruning in the 2:4 pattern, layer by layer, guarded by accuracy."""

    works_on = "onnx"
    settings = Settings
    needs_samples = True
    summary = "2:4 sparse weights for Ampere and later (Orin), where accuracy allows it"

    def run(self, network: Network, settings: Settings, context: Context) -> Change:
        """Write the graph with as many layers pruned as the guard allows; unchanged where it allows none."""
        model = read_onnx(network.main.path)
        layers = _ranked(model)
        facts: dict[str, Any] = {"layers": len(layers), "max_drop": settings.max_drop, "sparse_layers": 0}
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
                pruned = _written(network, model, layers[exempted:], context, f"try{exempted}")
                assert context.score
                runs[exempted] = context.score((pruned, None))
            return runs[exempted]

        count = 0 if tried(0) >= floor else fewest(tried, floor, len(layers), _ACCURACY_RUNS)
        facts |= {"float": floor + settings.max_drop, "runs": {str(k): v for k, v in sorted(runs.items())}}
        if count is None or count == len(layers):
            state = "refused: no layer can be pruned without fine-tuning"
            return Change(network=network, changed=False, facts={**facts, "state": state})
        done = _written(network, model, layers[count:], context, "main")
        facts |= {
            "state": "held",
            "kept": runs[count],
            "sparse_layers": len(layers) - count,
            "exempted": layers[:count],
        }
        return Change(network=done, changed=done.main.sha256 != network.main.sha256, facts=facts)


def _ranked(model: Any) -> list[str]:
    """Return the layers by the share of their weights' energy that pruning takes away, worst first."""
    arrays = arrays_of(model)
    lost = {}
    for node in prunable(model):
        weight = arrays[node.input[1]].astype(np.float64)
        gone = weight[~mask_2_4(weight, input_axis(node))]
        lost[node.name] = float((gone**2).sum() / max((weight**2).sum(), 1e-30))
    return sorted(lost, key=lambda name: (-lost[name], name))


def _written(network: Network, model: Any, layers: list[str], context: Context, name: str) -> Network:
    """Return the network with these layers pruned, its graph written into the pass's folder."""
    onnx, numpy_helper = need("onnx", extra="host"), need("onnx.numpy_helper", extra="host")
    done = onnx.ModelProto()
    done.CopyFrom(model)
    chosen = {n.input[1]: input_axis(n) for n in done.graph.node if n.name in set(layers)}
    for stored in done.graph.initializer:
        if stored.name in chosen:
            weight = numpy_helper.to_array(stored)
            kept = np.where(mask_2_4(weight, chosen[stored.name]), weight, 0).astype(weight.dtype)
            stored.CopyFrom(numpy_helper.from_array(kept, stored.name))
    path = context.out / f"{name}.onnx"
    save_onnx(done, path)
    graphs = {**network.graphs, "main": Graph(path=path, sha256=digest_file(path))}
    return replace(network, graphs=graphs)


PLUGIN: Pass = Sparsify()
