"""Cut hidden neurons of feed-forward layers, and let the second layer make up for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.calibration.factors import compensated, grid, hidden_error, ridge_leverage, top
from edgekit.calibration.rewriting import Left, Matrix, Rewriter, Site, Solved
from edgekit.calibration.second_moments import Tap
from edgekit.core.lazy import need

# Of the first layer's rows: the values come first, the gates after them.
_GATED = frozenset({"GEGLU", "SwiGLU"})
_PLAIN = frozenset({"GELU", "ApproximateGELU", "LinearActivation"})


class FeedForward:
    """Nyström with ridge leverage (MoDeGPT type I; SlimDiff, FFN).

    "nystrom" keeps the neurons of the highest leverage and compensates, "magnitude-compensated" those with the largest weights,
    "magnitude" too, without compensation.
    """

    methods = ("nystrom", "magnitude-compensated", "magnitude")

    def sites(self, network: Any) -> list[Site | Left]:
        """Return one site a feed-forward layer."""
        block = need("diffusers.models.attention", extra="diffusion").FeedForward
        found: list[Site | Left] = []
        for path, one in network.named_modules():
            if not isinstance(one, block):
                continue
            if why := _why_not(one):
                found.append(Left(module=path, why=why))
                continue
            first, second = one.net[0].proj, one.net[2]
            parts = first.out_features // second.in_features
            per = parts * first.in_features + second.out_features
            found.append(
                Site(
                    name=f"{path}:ffn", rewriter="ffn", module=path, group="feed-forward", size=second.in_features,
                    key="ff_width", multiple=64 if second.in_features >= 1024 else 8, rows=f"{path}:h",
                    params=per + parts * (first.bias is not None), per_row=per,
                )
            )  # fmt: skip
        return found

    def taps(self, network: Any, site: Site, method: str) -> list[Tap]:
        """Return the hidden layer as the second one takes it."""
        return [
            Tap(name=f"{site.module}:h", module=f"{site.module}.net.2", side="in", blocks=1, width=site.size)
        ]

    def solve(self, network: Any, site: Site, moments: Mapping[str, Matrix], method: str) -> Solved:
        """Rank the neurons, and find the error at some sizes."""
        one = network.get_submodule(site.module)
        moment, after = moments[f"{site.module}:h"][0], _after(one)
        sizes = grid(site.size)
        if method == "nystrom":
            scores = ridge_leverage(moment, sizes)
        else:
            scores = np.repeat(_magnitude(one)[None], len(sizes), axis=0)
        errors = []
        for size, score in zip(sizes, scores, strict=True):
            kept = top(score, size)
            new = after[kept] if method == "magnitude" else compensated(moment, kept, after)
            errors.append(hidden_error(moment, kept, after, new))
        errors[-1] = 0.0  # the whole; the ridge leaves some 1e-13
        return Solved(
            site=site, method=method, sizes=tuple(sizes), errors=tuple(errors), values={"scores": scores}
        )

    def rewritten(self, network: Any, solved: Solved, size: int, moments: Mapping[str, Matrix]) -> Any:
        """Return the layer with `size` neurons."""
        from edgekit.models.slim_layers import linear, with_neurons

        torch = need("torch", extra="diffusion")
        one = network.get_submodule(solved.site.module)
        # Scores are those of the nearest size on the grid: the ridge, and so the order, changes little between two.
        nearest = int(np.argmin(np.abs(np.array(solved.sizes) - size)))
        kept, after = top(solved.values["scores"][nearest], size), _after(one)
        if solved.method == "magnitude" or size == solved.site.size:
            new = after[kept]
        else:
            new = compensated(moments[f"{solved.site.module}:h"][0], kept, after)
        first, second = one.net[0].proj, one.net[2]
        at = torch.from_numpy(_rows(one, kept))
        before = linear(
            first.weight.detach()[at], None if first.bias is None else first.bias.detach()[at], like=first
        )
        bias = None if second.bias is None else second.bias.detach()
        behind = linear(torch.from_numpy(np.ascontiguousarray(new.T)), bias, like=second)
        return with_neurons(one, before, behind)


def _why_not(block: Any) -> str:
    nn = need("torch", extra="diffusion").nn
    kind = type(block.net[0]).__name__
    if kind not in _GATED | _PLAIN:
        return f"its activation is {kind}, which is not known here"
    if not all(type(one) is nn.Linear for one in (block.net[0].proj, block.net[2])):
        return "its layers are not plain linear layers"
    return ""


def _after(block: Any) -> Matrix:
    weight: Matrix = block.net[2].weight.detach().double().numpy()
    return weight.T


def _rows(block: Any, kept: Any) -> Any:
    """Return the first layer's rows of neurons: of a gated one both halves, in pairs."""
    size = block.net[2].in_features
    parts = block.net[0].proj.out_features // size
    return np.concatenate([kept + size * k for k in range(parts)])


def _magnitude(block: Any) -> Matrix:
    first: Matrix = block.net[0].proj.weight.detach().double().numpy()
    size = block.net[2].in_features
    before = np.sqrt((first.reshape(-1, size, first.shape[1]) ** 2).sum((0, 2)))
    score: Matrix = before * np.sqrt((_after(block) ** 2).sum(1))
    return score


PLUGIN: Rewriter = FeedForward()
