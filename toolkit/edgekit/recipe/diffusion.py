"""Check what a recipe says of a diffusion pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.forms.read import Form
from edgekit.recipe.parts import sound
from edgekit.recipe.records import DiffusionPart, ModelPart

# Parts that speak of one network with frames.
_FOREIGN = ("preprocess", "answers", "data", "train")
_PASSES = ("slimdiff", "simplify", "quantize-int8", "quantize-weights", "to-fp16")
_LIMITS = {
    "held_out": (1, 10_000), "steps": (1, 999), "guidance": (0, 100), "judged": (0, 100_000), "seed": (0, 1_000_000),
}  # fmt: skip


def check_diffusion(form: Form, passes: Sequence[str]) -> None:
    """Note what is wrong in `diffusion`, and what does not go with a pipeline."""
    model = sound(form, "model", ModelPart)
    part = sound(form, "diffusion", DiffusionPart) if form.value.get("diffusion") else None
    if model is None:
        return
    if not model.pipeline:
        _needless(form, passes)
        return
    _foreign(form, passes)
    if part is None:
        form.fault(("diffusion",), "is missing. Write `diffusion: {prompts: prompts.txt}`")
        return
    if not part.prompts:
        form.fault(("diffusion",), "prompts: is missing. Give a text file with one prompt a line")
    for key, (low, high) in _LIMITS.items():
        value = getattr(part, key)
        if not low <= value <= high:
            form.fault(("diffusion", key), f"should be {low:g} to {high:g}, found {value:g}")


def _needless(form: Form, passes: Sequence[str]) -> None:
    if "diffusion" in form.value:
        form.fault(("diffusion",), "goes with `model.pipeline` alone")
    if "slimdiff" in passes:
        form.fault(("passes",), "slimdiff goes with `model.pipeline` alone")


def _foreign(form: Form, passes: Sequence[str]) -> None:
    for key in _FOREIGN:
        if form.value.get(key):
            form.fault((key,), "says nothing of a pipeline. Leave it out")
    for name in passes:
        if name not in _PASSES:
            form.fault(("passes",), f"{name} does not go with a pipeline, these do: {', '.join(_PASSES)}")
    if "slimdiff" in passes and passes[0] != "slimdiff":
        form.fault(("passes",), f"slimdiff works in torch, {passes[0]} on its ONNX. Put slimdiff first")
