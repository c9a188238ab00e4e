"""Keep the whole state of a training run after each epoch, and take it up again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from edgekit.core.files import write_bytes


@dataclass(kw_only=True)
class State:
    """What a run has reached.

    Attributes:
        epoch: Whole epochs done.
        history: One entry an epoch: losses, learning rate, metric, seconds.
        best: The best metric so far, and `best_epoch` its epoch (from 1).
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0


def save_state(
    path: Path, state: State, model: Any, average: dict[str, Tensor], optimizer: torch.optim.Optimizer,
    loss: dict[str, Tensor],
) -> None:  # fmt: skip
    """Write everything that the next epoch depends on to one safetensors file, aside first."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    tensors |= {f"loss.{k}": v for k, v in loss.items()}
    numbers: dict[str, Any] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers[f"{index}.{name}"] = value
    words = {"state": json.dumps(vars(state)), "optimizer": json.dumps(numbers)}
    # Tensors that share memory are refused by the format; channels-last ones are stored plainly.
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    write_bytes(path, save(plain, metadata=words))


def restore_state(
    path: Path, model: Any, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, loss: Any
) -> State:
    """Fill model, average, optimizer and loss from a file of `save_state`; return where the run stood."""
    with safe_open(str(path), "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
        words = file.metadata()
    model.load_state_dict(_part(tensors, "model."))
    for key, value in _part(tensors, "average.").items():
        average[key].copy_(value)
    if loss is not None:
        loss.load_state_dict(_part(tensors, "loss."))
    slots: dict[int, dict[str, Any]] = {}
    for key, value in _part(tensors, "optimizer.").items():
        index, _, name = key.partition(".")
        slots.setdefault(int(index), {})[name] = value
    for key, value in json.loads(words["optimizer"]).items():
        index, _, name = key.partition(".")
        slots.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return State(**json.loads(words["state"]))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
