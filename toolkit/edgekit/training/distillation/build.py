"""Build student and teacher of a recipe in stages, for training and for export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.models.records import Source
from edgekit.models.staged import Staged, staged
from edgekit.models.torch_models import build, for_export
from edgekit.training.distillation.pair import Pair


def pair_of(
    teacher: Source, student: Source, *, shape: Sequence[int], stages: Sequence[str] = (), count: int = 0,
    seed: int = 0, weights: Path | None = None, export: bool = False,
) -> tuple[Pair, Any]:  # fmt: skip
    """Return a pair in eval mode, and the student's network.

    Args:
        teacher: With its weights.
        student: Random from `seed` where it names none.
        shape: Of one input, (C, H, W).
        stages: Names of the modules that end stages; empty for known networks.
        count: Stages of a transformer; 0 takes 4.
        seed: Of the student's weights and the converters'.
        weights: What `Pair.state_dict()` was after training.
        export: Whether heads give what an exported model gives, BatchNorm folded.

    Raises:
        RecipeError: The two do not go together.
    """
    torch = need("torch", extra="train", why="load progressively")
    nets = [build(teacher).module, build(student, seed=seed).module]
    torch.manual_seed(seed)
    if weights is not None:
        whole = Pair(*(_cut(n, shape, stages, count) for n in nets), shape=shape)
        tensors = need("safetensors.torch", extra="train").load_file(weights)
        whole.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
        if not export:
            return whole.eval(), nets[1]
        # Folding changes a network's modules: it is cut again, and its converters stay.
        nets = [for_export(n.eval()) for n in nets]
        folded = Pair(*(_cut(n, shape, stages, count) for n in nets), shape=shape)
        folded.encoders, folded.decoders = whole.encoders, whole.decoders
        return folded.eval(), nets[1]
    return Pair(*(_cut(n, shape, stages, count) for n in nets), shape=shape).eval(), nets[1]


def _cut(network: Any, shape: Sequence[int], stages: Sequence[str], count: int) -> Staged:
    found = staged(network, shape=shape, names=stages, stages=count)
    if len(found.stages) < 2:
        raise RecipeError(
            "progressive-load: the network has one stage", hint="Name more of them (`stages:`)."
        )
    return found
