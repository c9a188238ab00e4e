"""Cut the rank of values and of the output behind them, both together, in every head of an attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.calibration.attention_sites import (
    attentions,
    by_head,
    decomposed,
    factored,
    kind_of,
    rank_multiple,
    solved_product,
)
from edgekit.calibration.rewriting import Left, Matrix, Rewriter, Site, Solved
from edgekit.calibration.second_moments import Tap
from edgekit.core.lazy import need


class ValueOutput:
    """Minimises the expected squared error of each head's output.

    "attended" whitens with the moments of what the heads give, after their attention weights: exact for the real output.
    "whitened" takes those of the values alone, as MoDeGPT has it.
    """

    methods = ("attended", "whitened", "plain", "magnitude")

    def sites(self, network: Any) -> list[Site | Left]:
        """Return one site an attention."""
        found: list[Site | Left] = []
        for path, one, why in attentions(network):
            if why:
                continue
            out = one.to_out[0].out_features
            found.append(
                Site(
                    name=f"{path}:vo", rewriter="vo", module=path, group=f"{kind_of(one)}-attention VO",
                    size=one.to_v.out_features // one.heads, key="vo_rank", multiple=rank_multiple(one.to_v.out_features // one.heads),
                    rows=f"{path}:o", context=f"{path}:k",
                    params=one.heads * (one.to_v.in_features + out + (one.to_v.bias is not None)),
                    per_row=one.heads * out, per_context=one.heads * one.to_v.in_features, per_pair=one.heads,
                )
            )  # fmt: skip
        return found

    def taps(self, network: Any, site: Site, method: str) -> list[Tap]:
        """Return what the heads give; the values too where a method wants them."""
        one = network.get_submodule(site.module)
        wide = one.to_v.out_features
        found = [
            Tap(
                name=f"{site.module}:o",
                module=f"{site.module}.to_out.0",
                side="in",
                blocks=one.heads,
                width=wide,
            )
        ]
        if method == "whitened":
            found.append(
                Tap(
                    name=f"{site.module}:v",
                    module=f"{site.module}.to_v",
                    side="out",
                    blocks=one.heads,
                    width=wide,
                )
            )
        return found

    def solve(self, network: Any, site: Site, moments: Mapping[str, Matrix], method: str) -> Solved:
        """Decompose the product of both projections in every head."""
        one = network.get_submodule(site.module)
        values, after = by_head(one.to_v.weight, one.heads), self._after(one)
        right = np.swapaxes(after, -1, -2) @ after
        attended = moments[f"{site.module}:o"]
        left = moments[f"{site.module}:v"] if method == "whitened" else attended
        factors = decomposed(method, moments=(left, right), weights=(values, after))
        return solved_product(site, method, factors, attended, right)

    def rewritten(self, network: Any, solved: Solved, size: int, moments: Mapping[str, Matrix]) -> Any:
        """Return the attention with `size` dimensions a head for values."""
        from edgekit.models.slim_layers import linear, with_layers

        del moments
        torch = need("torch", extra="diffusion")
        one = network.get_submodule(solved.site.module)
        out = one.to_out[0]
        weight = self._after(one) @ solved.values["right"][..., :size]
        flat = torch.from_numpy(np.concatenate(list(weight), axis=1))
        return with_layers(
            one, to_v=factored(one.to_v, solved.values["left"][..., :size], one.heads),
            to_out=linear(flat, None if out.bias is None else out.bias.detach(), like=out),
        )  # fmt: skip

    def _after(self, attention: Any) -> Matrix:
        """Return the output layer as (heads, out, d)."""
        weight: Matrix = attention.to_out[0].weight.detach().double().numpy()
        return weight.reshape(weight.shape[0], attention.heads, -1).transpose(1, 0, 2)


PLUGIN: Rewriter = ValueOutput()
