"""Check a recipe whole, before any work: every fault at once, with its line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from edgekit.core.errors import RecipeError
from edgekit.core.plugins import family, suggestion
from edgekit.devices.profiles import profile_of
from edgekit.forms.read import Form, form_of, read_text
from edgekit.gates.protocol import Gate, gate_keys
from edgekit.recipe.diffusion import check_diffusion
from edgekit.recipe.parts import sound
from edgekit.recipe.records import (
    AnswersPart,
    BenchPart,
    DataPart,
    ExportPart,
    ModelPart,
    PreprocessPart,
    Recipe,
)
from edgekit.training.settings import LIMITS, TrainPart

DEVICE_WORDS = ("precision", "backend")
Part = TypeVar("Part")
# Passes that see the whole graph with its inputs: what goes in must be decided before them.
_AFTER_CODES = frozenset({"quantize-int8", "to-fp16", "sparsify-2-4"})
# The pass after which weights stay as they are, and those that store them in their own way.
_STORES, _OWN_WEIGHTS = "quantize-weights", frozenset({"quantize-int8", "to-fp16"})
_PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One pass of a recipe with its settings, typed by the pass itself."""

    name: str
    settings: Any


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A recipe without faults.

    Attributes:
        recipe: What it says.
        text: Its YAML, for the bundle.
        path: Its file, for messages.
        folder: What its relative paths start from.
        name: Of the bundle.
        steps: Passes in order.
        frames: Pre-processing keys the recipe gives; what it leaves out is the model's own.
    """

    recipe: Recipe
    text: str
    path: Path
    folder: Path
    name: str
    steps: tuple[Step, ...]
    frames: Mapping[str, Any]

    def gates(self, device: str) -> dict[str, float]:
        """Return the limits that hold on a device: the common ones, and its own over them."""
        own = {k: float(v) for k, v in self.on(device).items() if k not in DEVICE_WORDS}
        return {**{k: float(v) for k, v in self.recipe.gates.items()}, **own}

    def on(self, device: str) -> Mapping[str, Any]:
        """Return what the recipe says of one device, by any of its names."""
        given = self.recipe.devices
        named = (w for n, w in given.items() if profile_of(n).name == device)
        return given.get(device) or next(named, {})

    def beside(self, path: str) -> Path:
        """Return a path of the recipe as this process sees it."""
        return self.folder / path


def read_recipe(path: Path) -> Checked:
    """Return the recipe at `path`, checked.

    Raises:
        RecipeError: It has faults; all are listed, each with file, line and key.
    """
    text = read_text(path, what="recipe", hint="See `edgekit recipes list`.")
    return check_recipe(text, path=path, folder=path.parent)


def check_recipe(text: str, *, path: Path, folder: Path) -> Checked:
    """Return recipe text, checked.

    Args:
        text: YAML.
        path: Stands in messages and names the bundle.
        folder: What relative paths start from.

    Raises:
        RecipeError: It has faults.
    """
    form = form_of(text, path)
    recipe = form.record(Recipe, form.value)
    steps = _steps(form)
    _gates(form, form.value.get("gates"), ("gates",))
    _devices(form)
    # One faulty key must not hide what is wrong in the other parts.
    _model(form, sound(form, "model", ModelPart))
    _numbers(form)
    _train(form)
    check_diffusion(form, [s.name for s in steps])
    part = sound(form, "preprocess", PreprocessPart) if form.value.get("preprocess") else None
    frames = _frames(form, part) if part else {}
    _coded(form, steps)
    form.refuse()
    assert recipe
    name = recipe.name or path.stem
    return Checked(recipe=recipe, text=text, path=path, folder=folder, name=name, steps=steps, frames=frames)


def _steps(form: Form) -> tuple[Step, ...]:
    given = form.value.get("passes") or []
    if not isinstance(given, list):
        return ()
    found = []
    passes = family("passes")
    for k, one in enumerate(given):
        at: tuple[str | int, ...] = ("passes", k)
        if not isinstance(one, str) and not (isinstance(one, dict) and len(one) == 1):
            form.fault(at, "is not one pass. Write `- name: {setting: value}`")
            continue
        name, settings = (one, {}) if isinstance(one, str) else next(iter(one.items()))
        at = at if isinstance(one, str) else (*at, name)
        if name not in passes:
            form.fault(at, f"no pass {name!r}. {suggestion(str(name), passes)}")
        else:
            record = form.record(passes[name].settings, settings or {}, at)
            if record is not None:
                found.append(Step(name=name, settings=record))
    names = [s.name for s in found]
    for name in {n for n in names if names.count(n) > 1}:
        form.fault(("passes",), f"{name} stands there twice")
    _stored(form, names)
    return tuple(found)


def _stored(form: Form, names: Sequence[str]) -> None:
    """Note what does not go with a pass that stores weights in few bits: what comes after it would bring them back."""
    if _STORES not in names:
        return
    for other in (n for n in names if n in _OWN_WEIGHTS):
        form.fault(("passes",), f"{other} stores weights its own way. Leave out {_STORES} or {other}")
    for later in names[names.index(_STORES) + 1 :]:
        if later not in _OWN_WEIGHTS and later != _STORES:
            form.fault(("passes",), f"{_STORES} goes last. Put it behind {later}")


def _coded(form: Form, steps: tuple[Step, ...]) -> None:
    """Note what does not go with a pass that lets the model take a sensor's codes."""
    passes, names = family("passes"), [s.name for s in steps]
    for name in (n for n in names if passes[n].recodes):
        if form.value.get("preprocess"):
            form.fault(
                ("preprocess",), f"says nothing behind {name}: the sensor's codes are the input. Leave it out"
            )
        for later in names[: names.index(name)]:
            if later in _AFTER_CODES:
                form.fault(("passes",), f"{name} changes what goes in. Put it before {later}")


def _gates(form: Form, given: Any, at: tuple[str | int, ...], extra: tuple[str, ...] = ()) -> None:
    if not isinstance(given, dict):
        return
    known = gate_keys()
    for key, value in given.items():
        if key in extra:
            continue
        if key not in known:
            form.fault((*at, str(key)), f"no such gate. {suggestion(str(key), [*known, *extra])}")
        elif (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value <= _most(known[key])
        ):
            end = f" to {known[key].most:g}" if known[key].most is not None else ""
            form.fault(
                (*at, key), f"should be a number from 0{end} ({known[key].keys[key]}), found {value!r}"
            )


def _most(gate: Gate) -> float:
    return math.inf if gate.most is None else gate.most


def _devices(form: Form) -> None:
    given = form.value.get("devices")
    for name, words in given.items() if isinstance(given, dict) else ():
        at = ("devices", str(name))
        try:
            profile = profile_of(str(name), where="devices")
        except RecipeError as error:
            form.fault(at, f"no such device. {error.hint}")
            continue
        _gates(form, words, at, DEVICE_WORDS)
        if not isinstance(words, dict):
            continue
        backend, precision = words.get("backend"), words.get("precision")
        if backend is not None and backend not in profile.backends:
            form.fault(
                (*at, "backend"),
                f"{profile.name} has no {backend!r}. {suggestion(str(backend), profile.backends)}",
            )
        if precision is not None and precision not in _PRECISIONS:
            form.fault((*at, "precision"), f"no {precision!r}. {suggestion(str(precision), _PRECISIONS)}")


def _model(form: Form, model: ModelPart | None) -> None:
    if model is None:
        return
    kinds = ("name", "path", "function", "pipeline")
    given = [k for k in kinds if getattr(model, k)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        form.fault(("model",), f"needs exactly one of {', '.join(kinds)}, found {found}")
    if model.weights and not model.name:
        form.fault(("model", "weights"), "goes with `name` alone")
    if model.options and not model.name:
        form.fault(("model", "options"), "goes with `name` alone")
    if model.nc < 0:
        form.fault(("model", "nc"), f"should be a number of classes, found {model.nc}")


def _numbers(form: Form) -> None:
    export, data = sound(form, "export", ExportPart), sound(form, "data", DataPart)
    bench, answers = sound(form, "bench", BenchPart), sound(form, "answers", AnswersPart)
    if export and export.imgsz and not 32 <= export.imgsz <= 4096:
        form.fault(
            ("export", "imgsz"),
            f"should be 32 to 4096 pixels, or 0 for the model's own, found {export.imgsz}",
        )
    if export and not 13 <= export.opset <= 20:
        form.fault(("export", "opset"), f"should be 13 to 20, found {export.opset}")
    if data:
        _data_numbers(form, data)
    for k, threads in enumerate(bench.threads if bench else ()):
        if not 1 <= threads <= 256:
            form.fault(("bench", "threads", k), f"should be 1 to 256, found {threads}")
    for key in ("score", "iou") if answers else ():
        value = getattr(answers, key)
        if not 0 <= value <= 1:
            form.fault(("answers", key), f"should be 0 to 1, found {value}")


def _train(form: Form) -> None:
    given = form.value.get("train")
    if given is None and "train" in form.value:
        form.fault(("train",), "is empty. Write `train: {epochs: 100}`, or leave it out to train nothing")
    part = sound(form, "train", TrainPart) if isinstance(given, dict) else None
    if part is None:
        return
    for key, (low, high) in LIMITS.items():
        value = getattr(part, key)
        if not low <= value <= high:
            form.fault(("train", key), f"should be {low:g} to {high:g}, found {value:g}")
    if part.imgsz % 32:
        form.fault(("train", "imgsz"), f"should be a multiple of 32, found {part.imgsz}")
    _train_words(form, part)
    _train_needs(form)


def _train_words(form: Form, part: TrainPart) -> None:
    """Note settings that would have no effect."""
    given = set(form.value["train"])
    for key in sorted({"mu_mode", "mu_fixed"} & given) if part.loss != "slide" else ():
        form.fault(("train", key), "goes with `loss: slide` alone")
    for key in sorted({"distill", "teacher_weights"} & given) if not part.teacher else ():
        form.fault(("train", key), "goes with `teacher` alone")
    if part.teacher and not part.teacher_weights:
        form.fault(("train", "teacher"), "needs `teacher_weights`: an untrained teacher has nothing to say")


def _train_needs(form: Form) -> None:
    """Note what the rest of the recipe must say for a training."""
    frames = sound(form, "preprocess", PreprocessPart) if form.value.get("preprocess") else None
    if frames and replace(frames, scale=_fraction(frames.scale) or 0.0) != PreprocessPart(scale=1 / 255):
        form.fault(("preprocess",), "training knows letterboxed RGB frames in 0 to 1 alone. Leave it out")
    data, model = sound(form, "data", DataPart), sound(form, "model", ModelPart)
    if data and not data.path:
        form.fault(("train",), "needs `data.path`")
    if data and data.path and data.training == data.validation:
        form.fault(("data", "training"), "is the validation split; train on training images")
    if model and not model.name:
        form.fault(("train",), "needs `model.name`: only models of the catalogue are trained")


def _data_numbers(form: Form, data: DataPart) -> None:
    if not 1 <= data.samples <= 10000:
        form.fault(("data", "samples"), f"should be 1 to 10000, found {data.samples}")
    if data.limit < 0:
        form.fault(("data", "limit"), f"should be a number of images or 0 for all, found {data.limit}")
    if data.path and data.calibration == data.validation:
        form.fault(("data", "calibration"), "is the validation split; calibrate on training images")
    if list(data.bands) != sorted(set(data.bands)) or any(b <= 0 for b in data.bands):
        form.fault(("data", "bands"), f"should be sizes above 0 that rise, found {list(data.bands)}")


def _frames(form: Form, part: PreprocessPart) -> dict[str, Any]:
    """Return the keys that stand in the recipe, the scale as a number."""
    scale = _fraction(part.scale)
    if scale is None:
        form.fault(
            ("preprocess", "scale"), f"should be a number or a fraction such as 1/255, found {part.scale!r}"
        )
        return {}
    if not 0 <= part.pad <= 255:
        form.fault(("preprocess", "pad"), f"should be a grey level from 0 to 255, found {part.pad}")
    if not all(s > 0 for s in part.std):
        form.fault(("preprocess", "std"), f"should be above 0, found {list(part.std)}")
    given = {k: getattr(part, k) for k in form.value["preprocess"] if hasattr(part, k)}
    return {**given, "scale": scale} if "scale" in given else given


def _fraction(value: str | float) -> float | None:
    text = str(value).replace(" ", "")
    if not re.fullmatch(r"\d+(\.\d*)?([eE][-+]?\d+)?(/\d+(\.\d*)?)?", text):
        return None
    top, _, bottom = text.partition("/")
    number = float(Fraction(top) / Fraction(bottom)) if bottom and float(bottom) else float(top)
    return number if number > 0 and (not bottom or float(bottom)) else None
