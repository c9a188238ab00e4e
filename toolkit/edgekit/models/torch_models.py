"""Build torch modules: ultralytics' architectures and checkpoints, or a user's function."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.errors import MissingError, RecipeError
from edgekit.core.lazy import need
from edgekit.core.records import Answers, Frames
from edgekit.models.architectures import architecture, is_ours
from edgekit.models.classifiers import build_classifier
from edgekit.models.records import Declared, Source
from edgekit.models.small import build_small
from edgekit.models.timm_weights import from_timm, is_timm

_AGPL = "AGPL-3.0 (made with ultralytics)"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A torch module in eval mode, ready to trace, with what it declares."""

    module: Any
    declared: Declared
    stride: int


def build(source: Source, *, seed: int = 0) -> Loaded:
    """Return the torch module of a source; weights that are not given are random from `seed`.

    Raises:
        RecipeError: The file or function cannot be used.
        MissingError: torch or ultralytics is not installed.
    """
    torch = need("torch", extra="train", why=f"load {source.what}")
    torch.manual_seed(seed)
    if source.kind == "function":
        return _function(source)
    if source.kind == "small":
        return _small(source)
    if source.kind == "classifier":
        return _classifier(source)
    return _ultralytics(source)


def _ultralytics(source: Source) -> Loaded:
    """Return an ultralytics model: exporter settings on its head, BatchNorm still separate."""
    ultralytics = need("ultralytics", extra="train", why=f"load {source.what}")
    name = source.settings.get("architecture") or str(source.path)
    licence = source.settings.get("licence") or _AGPL
    try:
        if source.settings.get("architecture"):
            nc = int(source.settings["nc"])
            model = fresh(architecture_of(source), nc=nc, weights=source.settings["weights"])
            task = (
                str(ultralytics.YOLO(architecture_of(source)).task)
                if "-" in name and not is_ours(name)
                else "detect"
            )
            given = source.settings.get("classes") or [str(k) for k in range(nc)]
            names = dict(enumerate(given))
        else:
            wrapped = ultralytics.YOLO(name)
            model, task, names = wrapped.model, str(wrapped.task), dict(wrapped.names)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, EOFError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:240]
        raise RecipeError(
            f"{source.what}: ultralytics {ultralytics.__version__} cannot load it: {line}",
            hint="Check that it is an ultralytics checkpoint or architecture.",
        ) from error
    model = model.float().eval()
    stride = int(model.stride.max()) if hasattr(model, "stride") else 32
    classes = tuple(str(names[k]) for k in sorted(names))
    return Loaded(module=model, declared=_declared(task, classes, licence), stride=stride)


def _small(source: Source) -> Loaded:
    """Return a small classifier; its shape is what its weights or the data say."""
    settings = source.settings
    if not settings["shape"]:
        raise RecipeError(
            f"{source.what}: nobody says which signals it takes",
            hint="Add a `train:` part, or give weights that edgekit trained.",
        )
    module = build_small(source.what, shape=settings["shape"], nc=int(settings["nc"]))
    if settings["weights"]:
        tensors = need("safetensors.torch", extra="train").load_file(settings["weights"])
        module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    answers = Answers(task="classify", classes=tuple(settings["classes"]))
    declared = Declared(answers=answers, licence=settings["licence"])
    return Loaded(module=module.float().eval(), declared=declared, stride=1)


def _classifier(source: Source) -> Loaded:
    """Return an image classifier with its weights, else random ones."""
    settings = source.settings
    module = build_classifier(source.what, nc=int(settings["nc"]), options=settings["options"])
    if settings["weights"]:
        tensors = need("safetensors.torch", extra="train").load_file(settings["weights"])
        module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    answers = Answers(task="classify", classes=tuple(settings["classes"]))
    declared = Declared(answers=answers, frames=Frames(resize="crop"), licence=settings["licence"])
    return Loaded(module=module.float().eval(), declared=declared, stride=1)


def architecture_of(source: Source) -> Mapping[str, Any] | str:
    """Return what `fresh` builds: our dictionary, or the name of a file of ultralytics'."""
    name = str(source.settings["architecture"])
    if not is_ours(name):
        return name if source.path else f"{name}.yaml"
    return architecture(name, nc=int(source.settings["nc"]), options=source.settings["options"])


def fresh(architecture: Mapping[str, Any] | str, *, nc: int = 0, weights: str = "") -> Any:
    """Return a detection model with the weights of a safetensors file, else random ones.

    Args:
        architecture: As `architectures.architecture` gives it, or a file that ultralytics knows.
        nc: Number of classes; 0 takes the architecture's own.
        weights: A safetensors file, or nothing.
    """
    tasks = need("ultralytics.nn.tasks", extra="train")
    need("edgekit.models.layers").register()
    given = architecture if isinstance(architecture, str) else dict(architecture)
    model = tasks.DetectionModel(given, nc=nc or None, verbose=False)
    if weights:
        tensors = need("safetensors.torch", extra="train").load_file(weights)
        if is_timm(tensors):
            # The backbone alone; neck and head stay as they were made.
            tensors = {**model.state_dict(), **from_timm(tensors)}
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return model


def _declared(task: str, classes: tuple[str, ...], licence: str) -> Declared:
    if task == "detect":
        answers = Answers(task="detect", layout="yolov8", classes=classes)
        return Declared(answers=answers, frames=Frames(), licence=licence)
    if task == "classify":
        answers = Answers(task="classify", classes=classes)
        return Declared(answers=answers, frames=Frames(resize="crop"), licence=licence)
    return Declared(licence=licence)


def for_export(module: Any) -> Any:
    """Return the module with BatchNorm folded and heads set to give one tensor."""
    if hasattr(module, "fuse") and hasattr(module, "stride"):
        module = module.fuse(verbose=False)
        for part in module.modules():
            if hasattr(part, "export") and hasattr(part, "dynamic"):
                part.export, part.format, part.dynamic = True, "onnx", True
            elif type(part).__name__ == "Classify":
                part.export = True
    return module


def _function(source: Source) -> Loaded:
    where, _, name = str(source.settings["function"]).partition(":")
    try:
        made = getattr(importlib.import_module(where), name)()
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"model.function: {source.what}: {error}", hint="Check the name.") from error
    torch = need("torch", extra="train")
    if not isinstance(made, torch.nn.Module):
        raise RecipeError(
            f"model.function: {source.what} gave {type(made).__name__}, no torch.nn.Module",
            hint="Let it return the module.",
        )
    return Loaded(module=made.float().eval(), declared=Declared(), stride=1)


def counts(source: Source, *, imgsz: int) -> dict[str, float]:
    """Return parameters and GFLOPs of an architecture, unfused and fused, as ultralytics counts them.

    Raises:
        MissingError: torch or ultralytics is not installed.
    """
    need("ultralytics", extra="train", why="count an architecture")
    utils = need("ultralytics.utils.torch_utils", extra="train")
    model = fresh(architecture_of(source), nc=int(source.settings["nc"])).eval()
    found: dict[str, float] = {}
    for state in ("unfused", "fused"):
        if state == "fused":
            model = model.fuse(verbose=False)
        gflops = utils.get_flops(model, imgsz)
        if not gflops:
            raise MissingError("ultralytics-thop is not installed", hint="Run: pip install ultralytics-thop")
        found[f"params_{state}"] = sum(p.numel() for p in model.parameters())
        found[f"gflops_{state}"] = round(float(gflops), 3)
    return found
