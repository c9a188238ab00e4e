"""Cut the rank of queries and keys, both together, in every head of an attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.calibration.attention_sites import (
    attentions,
    by_head,
    decomposed,
    factored,
    kind_of,
    left_alone,
    rank_multiple,
    solved_product,
)
from edgekit.calibration.rewriting import Left, Matrix, Rewriter, Site, Solved
from edgekit.calibration.second_moments import Tap


class QueryKey:
    """Minimises the expected squared error of the logits for independent queries and keys (SlimDiff, QK)."""

    methods = ("whitened", "columns", "plain", "magnitude")

    def sites(self, network: Any) -> list[Site | Left]:
        """Return one site an attention."""
        found: list[Site | Left] = [*left_alone(network)]
        for path, one, why in attentions(network):
            if why:
                continue
            wide = one.to_q.in_features + one.to_k.in_features
            biases = sum(layer.bias is not None for layer in (one.to_q, one.to_k))
            found.append(
                Site(
                    name=f"{path}:qk", rewriter="qk", module=path, group=f"{kind_of(one)}-attention QK",
                    size=one.to_q.out_features // one.heads, key="qk_rank", multiple=rank_multiple(one.to_q.out_features // one.heads),
                    rows=f"{path}:q", context=f"{path}:k", params=one.heads * (wide + biases),
                    per_row=one.heads * one.to_q.in_features, per_context=one.heads * one.to_k.in_features, per_pair=one.heads,
                )
            )  # fmt: skip
        return found

    def taps(self, network: Any, site: Site, method: str) -> list[Tap]:
        """Return queries and keys, head by head."""
        one = network.get_submodule(site.module)
        return [
            Tap(name=f"{site.module}:{n}", module=f"{site.module}.to_{n}", side="out", blocks=one.heads, width=one.to_q.out_features)
            for n in ("q", "k")
        ]  # fmt: skip

    def solve(self, network: Any, site: Site, moments: Mapping[str, Matrix], method: str) -> Solved:
        """Decompose the product of both projections in every head."""
        one = network.get_submodule(site.module)
        pair = moments[f"{site.module}:q"], moments[f"{site.module}:k"]
        weights = by_head(one.to_q.weight, one.heads), by_head(one.to_k.weight, one.heads)
        return solved_product(site, method, decomposed(method, moments=pair, weights=weights), *pair)

    def rewritten(self, network: Any, solved: Solved, size: int, moments: Mapping[str, Matrix]) -> Any:
        """Return the attention with `size` dimensions a head for queries and keys."""
        from edgekit.models.slim_layers import with_layers

        del moments
        one = network.get_submodule(solved.site.module)
        # A kernel divides the logits by the root of the rank that is stored, the original by that of the head's size.
        scale = (size / solved.site.size) ** 0.5
        return with_layers(
            one, to_q=factored(one.to_q, solved.values["left"][..., :size], one.heads, scale=scale),
            to_k=factored(one.to_k, solved.values["right"][..., :size], one.heads),
        )  # fmt: skip


PLUGIN: Rewriter = QueryKey()
