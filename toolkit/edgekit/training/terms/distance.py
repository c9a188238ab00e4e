"""How far two boundaries are apart."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss


def apart(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared error plus the mean over samples of 1 - cosine, in float32."""
    one, two = a.float(), b.float()
    return mse_loss(one, two) + (1 - cosine_similarity(one.flatten(1), two.flatten(1))).mean()
