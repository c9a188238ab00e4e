"""Small diffusion networks, and what runs through them, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from edgekit.calibration.rewriting import rewriters, sites_of
from edgekit.calibration.second_moments import Kept, SecondMoments


def unet(*, head: int = 2, seed: int = 0, **more: Any) -> UNet2DConditionModel:
    """Return a UNet of two levels with attention at both, values on every weight and bias."""
    torch.manual_seed(seed)
    settings = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "block_out_channels": (32, 48),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 24,
        "attention_head_dim": head, "norm_num_groups": 8,
    } | more  # fmt: skip
    network = UNet2DConditionModel(**settings).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(count: int = 4, *, seed: int = 1, context: int = 24) -> dict[str, torch.Tensor]:
    """Return what a UNet takes; each axis of the context has a scale of its own, as real ones have."""
    rng = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.1, 2.0, context)
    return {
        "sample": torch.randn(count, 4, 8, 8, generator=rng),
        "timestep": torch.tensor([10, 300, 600, 900])[:count],
        "encoder_hidden_states": torch.randn(count, 5, context, generator=rng) * scales,
    }


def moments(network: Any, folder: Path, given: dict[str, torch.Tensor], *, tokens: int = 0) -> Kept:
    """Return the moments of all taps of all methods over one call."""
    sites, _ = sites_of(network)
    taps = {}
    for site in sites:
        rewriter = rewriters()[site.rewriter]
        for method in rewriter.methods:
            taps |= {t.name: t for t in rewriter.taps(network, site, method)}
    sums = SecondMoments(list(taps.values()), tokens=tokens, seed=0)
    sums.weight = 1.0
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(), sums.watching(network):
        network(**given)
    sums.save(folder)
    return Kept([folder])


def run(network: Any, given: dict[str, torch.Tensor]) -> np.ndarray:
    """Return the UNet's answer."""
    with torch.inference_mode():
        return network(**given).sample.double().numpy()


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Return the relative squared error."""
    return float(((a - b) ** 2).sum() / (b**2).sum())
