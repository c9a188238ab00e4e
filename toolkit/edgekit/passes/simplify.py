"""Fold constants and remove needless nodes."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.digest import digest_file
from edgekit.core.records import Graph, Network
from edgekit.graph.onnx_file import read_onnx, save_onnx
from edgekit.graph.static import slim
from edgekit.graph.walk import name_nodes
from edgekit.passes.protocol import Change, Context, Pass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The simplify pass has no settings."""


class Simplify:
    """onnxslim over every graph of the network."""

    works_on = "onnx"
    settings = Settings
    needs_samples = False
    recodes = False
    summary = "fold constants and remove needless nodes (onnxslim)"

    def run(self, network: Network, settings: Settings, context: Context) -> Change:
        """Write `<graph>.onnx` for each graph."""
        del settings
        graphs, before, after = {}, 0, 0
        for name, graph in network.graphs.items():
            model = read_onnx(graph.path)
            before += len(model.graph.node)
            model = slim(model, where=graph.path.name)
            name_nodes(model.graph)
            after += len(model.graph.node)
            path = context.out / f"{name}.onnx"
            save_onnx(model, path)
            graphs[name] = Graph(path=path, sha256=digest_file(path))
        changed = any(graphs[n].sha256 != network.graphs[n].sha256 for n in graphs)
        done = Network(graphs=graphs, contract=network.contract, source=network.source)
        return Change(network=done, changed=changed, facts={"nodes_before": before, "nodes_after": after})


PLUGIN: Pass = Simplify()
