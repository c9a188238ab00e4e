"""What the rewriters of attention share: which there are, how a pair of layers takes factors, head by head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.calibration.factors import Factors, columns, product_errors, tensor, whitened
from edgekit.calibration.rewriting import Left, Matrix, Site, Solved
from edgekit.core.lazy import need


def attentions(network: Any) -> Iterator[tuple[str, Any, str]]:
    """Give path, module and why it must stay (empty where it need not) of every attention."""
    from edgekit.models.slim_layers import SlimAttention, why_not

    attention = need("diffusers.models.attention_processor", extra="diffusion").Attention
    for path, module in network.named_modules():
        if isinstance(module, SlimAttention):
            yield path, module, ""
        elif isinstance(module, attention):
            yield path, module, why_not(module)


def kind_of(attention: Any) -> str:
    """Return "cross" where keys come from elsewhere by their width or by name, else "self"."""
    own = getattr(attention, "is_cross_attention", None)
    other = attention.to_k.in_features != attention.to_q.in_features
    return "cross" if own or other else "self"


def by_head(weight: Any, heads: int) -> Matrix:
    """Return a weight (heads x d, in) as (heads, in, d), float64."""
    rows: Matrix = weight.detach().to("cpu").double().numpy()
    return rows.reshape(heads, -1, rows.shape[1]).transpose(0, 2, 1)


def solved_product(site: Site, method: str, factors: Factors, left: Matrix, right: Matrix) -> Solved:
    """Return a product's factors with its error at every rank.

    Args:
        site: The group.
        method: Name of it.
        factors: Of all ranks.
        left: Calibration moments of the left rows, (heads, d, d).
        right: Of the right rows.
    """
    # Every rank of small heads; of large ones every fourth, which is finer than any kernel's multiple.
    step = 1 if site.size <= 64 else 4
    sizes = sorted({*range(step, site.size + 1, step), site.size})
    errors = product_errors(factors, left, right, sizes)
    values = {"left": factors.left, "right": factors.right}
    return Solved(
        site=site, method=method, sizes=tuple(sizes), errors=tuple(map(float, errors)), values=values
    )


def decomposed(method: str, *, moments: tuple[Matrix, Matrix], weights: tuple[Matrix, Matrix]) -> Factors:
    """Return the factors of a product by one of the methods that all attention rewriters know.

    Args:
        method: "whitened" and "attended" whiten with the moments, "plain" takes the SVD of the weights' product, "columns" keeps
            the head's dimensions with the largest moments, "magnitude" those with the largest weights.
        moments: Of left and right rows, (heads, d, d).
        weights: Left and right, (heads, in, d).
    """
    if method == "plain":
        left, right = (np.swapaxes(w, -1, -2) @ w for w in weights)
        return whitened(left, right)
    if method == "columns":
        return columns(_product_of_diagonals(*moments))
    if method == "magnitude":
        return columns(_product_of_diagonals(*(np.swapaxes(w, -1, -2) @ w for w in weights)))
    return whitened(*moments)


def _product_of_diagonals(left: Matrix, right: Matrix) -> Matrix:
    found: Matrix = np.sqrt(np.einsum("hii->hi", left) * np.einsum("hii->hi", right))
    return found


def factored(layer: Any, factors: NDArray[np.float64], heads: int, *, scale: float = 1.0) -> Any:
    """Return a layer whose output in each head is multiplied by factors (heads, d, rank)."""
    from edgekit.models.slim_layers import linear

    turn = tensor(np.swapaxes(factors, -1, -2) * scale)
    weight = turn @ tensor(np.swapaxes(by_head(layer.weight, heads), -1, -2))
    bias = None
    if layer.bias is not None:
        bias = (turn @ layer.bias.detach().double().reshape(heads, -1, 1)).reshape(-1)
    return linear(weight.reshape(-1, layer.in_features), bias, like=layer)


def left_alone(network: Any) -> list[Left]:
    """Return the attentions that must stay."""
    return [Left(module=path, why=why) for path, _, why in attentions(network) if why]


def rank_multiple(size: int) -> int:
    """Return what kernels like the rank of a head of this size to be a multiple of."""
    return 8 if size >= 32 else 1
