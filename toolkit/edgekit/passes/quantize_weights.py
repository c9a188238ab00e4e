"""Store weights in int8 or fp16 and compute in float32: a quarter or half of the file, no ranges to observe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError
from edgekit.core.records import Graph, Network
from edgekit.graph.half import restore_half, store_half
from edgekit.graph.int8_weights import store_int8
from edgekit.graph.onnx_file import read_onnx, save_onnx
from edgekit.passes.protocol import Change, Context, Pass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of quantize-weights.

    Attributes:
        to: `int8` stores each output channel in 255 steps of its own scale, `fp16` every weight in half precision.
    """

    to: Literal["int8", "fp16"] = "int8"


class QuantizeWeights:
    """Weight-only quantization of every graph, a pipeline's text encoder and decoder among them."""

    works_on = "onnx"
    settings = Settings
    needs_samples = False
    recodes = False
    summary = "weights stored in int8 or fp16, computed in float32: smaller files"

    def run(self, network: Network, settings: Settings, context: Context) -> Change:
        """Write `<graph>.onnx` for each graph.

        Raises:
            RecipeError: The graph is in fp16 already, or no weight is large enough to be worth it.
        """
        if network.source.get("precision", "fp32") != "fp32":
            raise RecipeError(
                "passes.quantize-weights: the graph is in fp16 already",
                hint="Leave out one of the two passes.",
            )
        graphs, facts = {}, dict[str, Any](to=settings.to, tensors=0, graphs={}, mb_before=0.0, mb_after=0.0)
        for name, graph in network.graphs.items():
            # Networks above 2 GiB were exported with weights in fp16; from there they go on.
            model = restore_half(read_onnx(graph.path))
            before = len(model.graph.node)
            if settings.to == "int8":
                count = store_int8(model)
            else:
                model = store_half(model, in_place=True)
                count = len(model.graph.node) - before
            path = context.out / f"{name}.onnx"
            save_onnx(model, path)
            graphs[name] = Graph(path=path, sha256=digest_file(path))
            facts["tensors"] += count
            facts["graphs"][name] = count
            facts["mb_before"] += graph.path.stat().st_size / 1e6
            facts["mb_after"] += path.stat().st_size / 1e6
        if not facts["graphs"]["main"]:
            raise RecipeError(
                "passes.quantize-weights: no weight of this model has 1,024 values or more that an operator reads by itself",
                hint="Leave the pass out: there is nothing to gain.",
            )
        facts |= {k: round(facts[k], 3) for k in ("mb_before", "mb_after")}
        return Change(network=replace(network, graphs=graphs), changed=True, facts=facts, lossy=True)


PLUGIN: Pass = QuantizeWeights()
