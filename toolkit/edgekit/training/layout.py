"""How a network's images and weights lie in memory while it is trained."""

from __future__ import annotations

import torch
from torch import nn


def layout_of(model: nn.Module) -> torch.memory_format:
    """Return the layout to train a network of images in: channels last, which is the faster, wherever it is safe.

    oneDNN's gradient of the weights of a strided 1 x 1 convolution writes behind its buffer on CPUs with AVX2
    and no AVX-512, where channels come last and fewer than 8 come in: the heap is broken, and the process dies
    at some later call. Seen with torch 2.14.1 for 3 to 7 channels in, 6 to 24 out, stride 2.
    """
    return torch.contiguous_format if any(map(_breaks, model.modules())) else torch.channels_last


def _breaks(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels // module.groups < 8
    )
