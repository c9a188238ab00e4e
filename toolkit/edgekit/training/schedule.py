"""Learning rate, parameter groups and weight average of a training run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from edgekit.training.settings import TrainPart

# Adam moves every parameter by about its rate: at the network's own, γ went from 1 to 0.28 in 30 epochs and lost 0.7
# points to a rate three times as high.
_CURVE_RATES = {"adamw": 3.0, "sgd": 1.0}


def curve_rate(settings: TrainPart, asked: float) -> float:
    """Return the learning rate of a sensor's curve as a factor on the network's; `asked` where it is not 0."""
    return asked or _CURVE_RATES[settings.optimizer]


def rate(step: int, total: int, warmup: int, settings: TrainPart) -> float:
    """Return the learning rate of a step: a straight rise, then linear or cosine to the last one."""
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    share = (step - warmup) / max(total - warmup, 1)
    left = 1 - share if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * share))
    return settings.lr * (settings.final_lr + (1 - settings.final_lr) * left)


def curve_group(model: Any, factor: float) -> list[dict[str, Any]]:
    """Return the group of a sensor's curve: its own rate, as a factor on the network's, and no weight decay."""
    return [{"params": list(model.front.parameters()), "weight_decay": 0.0, "factor": factor}]


def optimizer_of(
    model: Any, settings: TrainPart, *, apart: Sequence[dict[str, Any]] = ()
) -> torch.optim.Optimizer:
    """Return the optimizer: weight decay on convolution weights only.

    Args:
        model: What is trained.
        settings: Of the training.
        apart: Groups of parameters with a rate of their own: `params`, `weight_decay`, and `factor` on the rate.
    """
    own = {id(p) for group in apart for p in group["params"]}
    learned = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups += apart
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=True)


def copied(model: Any) -> dict[str, Tensor]:
    """Return a copy of the weights and statistics."""
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def move_average(average: dict[str, Tensor], model: Any, step: int, decay: float) -> None:
    """Move the weight average towards the model, faster in the first steps."""
    # The rise to full decay takes a fifth of the average's own span, so that short runs get one, too.
    span = 0.2 / max(1 - decay, 1e-9)
    now = decay * (1 - math.exp(-(step + 1) / span))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                average[name].mul_(now).add_(value, alpha=1 - now)
            else:
                average[name].copy_(value)
