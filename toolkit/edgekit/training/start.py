"""What a run starts from: the network, the weights it begins with, and its number format."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from safetensors.torch import load_file

from edgekit.core.errors import RecipeError
from edgekit.core.watch import watcher
from edgekit.machine.probe import computes_bf16
from edgekit.models.classifiers import build_classifier
from edgekit.models.records import Source
from edgekit.models.small import build_small
from edgekit.models.timm_weights import from_timm, is_timm
from edgekit.models.torch_models import architecture_of, fresh


def begin(source: Source, *, seed: int) -> tuple[Any, int]:
    """Return a model to train, and how many tensors it took from the source's weights.

    Weights of other shapes, such as a head for other classes, stay as `seed` made them.

    Raises:
        RecipeError: Not one tensor of the weights fits.
    """
    torch.manual_seed(seed)
    if source.kind == "small":
        model = build_small(source.what, shape=source.settings["shape"], nc=int(source.settings["nc"]))
    elif source.kind == "classifier":
        model = build_classifier(
            source.what, nc=int(source.settings["nc"]), options=source.settings["options"]
        )
    else:
        model = fresh(architecture_of(source), nc=int(source.settings["nc"]))
    if not source.settings["weights"]:
        return model, 0
    own = model.state_dict()
    given = load_file(source.settings["weights"])
    given = from_timm(given) if is_timm(given) else given
    fits = {k: v.to(own[k].dtype) for k, v in given.items() if k in own and own[k].shape == v.shape}
    if not fits:
        raise RecipeError(
            f"{source.settings['weights']}: none of its {len(given)} tensors fits {source.what}",
            hint="Give weights of this model, or leave model.weights out to train from scratch.",
        )
    model.load_state_dict(fits, strict=False)
    if len(fits) < len(own):
        watcher().note(
            f"{source.what}: {len(fits)} of {len(own)} tensors taken from the weights, the rest is new"
        )
    return model, len(fits)


def in_bf16(precision: str, isa: Collection[str]) -> bool:
    """Return whether the forward pass runs in bfloat16: where asked, or where this machine computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return computes_bf16(isa)
