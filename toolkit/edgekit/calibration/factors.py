"""Cut a product of two matrices, or a hidden layer, to fewer dimensions with the least expected error.

Everything an attention head multiplies is `L R'`: logits are `(x W_q)(y W_k)'`, its output is `(A y W_v) W_o`. With second
moments `G_l` of the left rows and `G_r` of the right ones (head size x head size) the best product of rank r of
`G_l^1/2 G_r^1/2 = U S V'` gives factors inside the head: `W_q <- W_q L_r`, `L_r = G_l^-1/2 U_r S_r^1/2`, and `W_k` likewise.
It is the whitening-SVD of SVD-LLM (arXiv 2403.07378) and SlimDiff (arXiv 2509.21498, module-aligned decompositions) of the
whole matrices, since both factors lie in the span of the original columns; but its matrices are of the head's size, biases are
already in the moments, and no d x d root is taken. Hidden layers: the Nyström method with ridge leverage of MoDeGPT
(arXiv 2408.09632, type I). All in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need

Matrix = NDArray[np.float64]
Order = NDArray[np.intp]
# Eigenvalues below this share of the largest are taken for it.
_FLOOR = 1e-8
_RIDGE = 1e-6
# Sizes at which a hidden layer's error is computed; between them it is interpolated.
GRID = 16


@dataclass(frozen=True, kw_only=True)
class Factors:
    """One product per head, decomposed: its first r columns are the factors of rank r.

    Attributes:
        left: (heads, d, d).
        right: (heads, d, d).
    """

    left: Matrix
    right: Matrix


def tensor(array: NDArray[Any]) -> Any:
    """Return an array as a float64 tensor.

    torch's linear algebra shares its threads with the network that runs between two decompositions; numpy's own would spin against
    them.
    """
    torch = need("torch", extra="diffusion")
    return torch.from_numpy(np.ascontiguousarray(array, np.float64))


def roots(moment: Matrix) -> tuple[Matrix, Matrix]:
    """Return square root and inverse square root of symmetric matrices (…, d, d), eigenvalues floored at 1e-8 of the largest."""
    given = tensor(moment)
    values, vectors = need("torch").linalg.eigh((given + given.mT) / 2)
    top_ = values[..., -1:].clamp_min(float(np.finfo(np.float64).tiny))
    scaled = values.maximum(_FLOOR * top_).sqrt()[..., None, :]
    return ((vectors * scaled) @ vectors.mT).numpy(), ((vectors / scaled) @ vectors.mT).numpy()


def whitened(left: Matrix, right: Matrix) -> Factors:
    """Return the factors that lose least of `L R'` for independent rows with these moments, (heads, d, d) each."""
    (left_root, left_back), (right_root, right_back) = roots(left), roots(right)
    u, s, vt = need("torch").linalg.svd(tensor(left_root) @ tensor(right_root))
    scale = s.sqrt()[..., None, :]
    return Factors(
        left=(tensor(left_back) @ (u * scale)).numpy(), right=(tensor(right_back) @ (vt.mT * scale)).numpy()
    )


def columns(score: Matrix) -> Factors:
    """Return factors that keep whole columns, the highest score first.

    Args:
        score: (heads, d).
    """
    order = np.argsort(-score, axis=-1, kind="stable")
    chosen = np.swapaxes(np.eye(score.shape[-1])[order], -1, -2)
    return Factors(left=chosen, right=chosen)


def product_errors(factors: Factors, left: Matrix, right: Matrix, ranks: Sequence[int]) -> Matrix:
    """Return the relative squared error of the product at each rank, all heads together: `tr(G_l D G_r D')`."""
    given, other = tensor(left), tensor(right)
    total = float((given * other.mT).sum())
    if total <= 0:
        return np.zeros(len(ranks))
    first, second = tensor(factors.left), tensor(factors.right)
    eye = need("torch").eye(given.shape[-1], dtype=given.dtype)
    found = []
    for rank in ranks:
        gone = eye - first[..., :rank] @ second[..., :rank].mT
        found.append(max(float(((given @ gone) * (gone @ other)).sum()) / total, 0.0))
    return np.array(found, np.float64)


def ridge_leverage(moment: Matrix, sizes: Sequence[int]) -> Matrix:
    """Return each neuron's ridge leverage `[C (C + l I)^-1]_ii`, (len(sizes), d), with l the mean tail beyond each size."""
    values, vectors = need("torch").linalg.eigh(tensor(moment))
    values = values.flip(0).clamp_min(0)
    squared = vectors.flip(1).square()
    found = []
    for size in sizes:
        ridge = float(values[size:].sum()) / max(size, 1)
        # Where there is no tail any ridge above zero gives the same order but no division by zero.
        ridge = max(ridge, 1e-12 * max(float(values[0]), float(np.finfo(np.float64).tiny)))
        found.append((squared @ (values / (values + ridge))).numpy())
    return np.array(found)


def compensated(moment: Matrix, kept: Order, after: Matrix) -> Matrix:
    """Return the second layer's matrix (kept, out) that makes up for the neurons that are gone: `(C_JJ + m I)^-1 C_J: W`."""
    torch = need("torch")
    inner = tensor(moment[np.ix_(kept, kept)])
    ridge = _RIDGE * float(inner.trace()) / len(kept)
    wanted = tensor(moment[kept]) @ tensor(after)
    solved: Matrix = torch.linalg.solve(
        inner + ridge * torch.eye(len(kept), dtype=inner.dtype), wanted
    ).numpy()
    return solved


def hidden_error(moment: Matrix, kept: Order, after: Matrix, new: Matrix) -> float:
    """Return the relative squared error of a hidden layer that keeps these neurons with the matrix `new` behind them."""
    given, behind, made = tensor(moment), tensor(after), tensor(new)
    through = given @ behind
    total = float((through * behind).sum())
    if total <= 0:
        return 0.0
    at = need("torch").from_numpy(kept)
    error = total - 2 * float((through[at] * made).sum()) + float(((given[at][:, at] @ made) * made).sum())
    return max(error / total, 0.0)


def top(score: NDArray[np.floating], size: int) -> Order:
    """Return the indices of the `size` highest scores, in ascending order."""
    return np.sort(np.argsort(-score, kind="stable")[:size])


def grid(size: int, points: int = GRID) -> list[int]:
    """Return about `points` sizes from 1 to `size`, evenly spread."""
    return sorted({max(1, round(size * (k + 1) / points)) for k in range(points)})
