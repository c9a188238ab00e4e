"""Refuse what cannot end well, in seconds, before the first slow stage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgekit.bundle.sign import sign
from edgekit.core.errors import EdgekitError, MissingError, RecipeError, ResourceError
from edgekit.core.lazy import have, need
from edgekit.core.plugins import pick, suggestion
from edgekit.data.make import GENERATED
from edgekit.devices.profiles import refuse_backend
from edgekit.forms.read import read_form
from edgekit.jobs.ask import Ask, refuse_foreign
from edgekit.jobs.data import data_file
from edgekit.jobs.grow import NAME as GROW
from edgekit.jobs.grow import grow_settings, student_of
from edgekit.jobs.model import find_model
from edgekit.jobs.painted import refuse_judge
from edgekit.jobs.scene import is_pipeline, refuse_pipeline
from edgekit.jobs.train import need_train, start, teacher_of

_FREE_MB = 300


def refuse_early(ask: Ask) -> None:
    """Check model, data, extras, device, output, key and disk; report all faults that are found.

    Raises:
        EdgekitError: The one fault, or all of them with the exit code of the gravest.
    """
    faults = list(_faults(ask))
    if len(faults) == 1:
        raise faults[0]
    if faults:
        gravest = max(faults, key=lambda f: f.exit_code)
        kind = RecipeError if any(f.exit_code == RecipeError.exit_code for f in faults) else type(gravest)
        raise kind(
            "\n".join(f"{f.message}. {f.hint}" if f.hint else f.message for f in faults),
            hint="Correct all of these and run again.",
        )


def _faults(ask: Ask) -> Iterator[EdgekitError]:
    checks: tuple[Callable[[Ask], None], ...] = (
        _model,
        _data,
        _device,
        _passes,
        _output,
        _key,
        _disk,
        _extras,
    )
    for check in checks:
        try:
            check(ask)
        except EdgekitError as error:
            yield error


def _model(ask: Ask) -> None:
    if is_pipeline(ask):
        refuse_pipeline(ask)
        refuse_judge(ask)
        return
    if ask.checked.recipe.train:
        need_train()
        start(ask, ask.checked.recipe.model.nc)
        teacher_of(ask, ())
        if ask.side % 32:
            raise RecipeError(
                f"export.imgsz: {ask.side} is no multiple of 32, the stride of detectors",
                hint=f"Take {round(ask.side / 32) * 32}.",
            )
        return
    source = find_model(ask)
    if source.kind != "onnx":
        need("torch", extra="train", why=f"load {source.what}")
    if source.kind == "ultralytics":
        _need_installed("ultralytics", why=f"load {source.what}")


def _need_installed(name: str, *, why: str) -> None:
    """Refuse a package of [train] that is missing, without importing it."""
    if not have(name):
        raise MissingError(
            f"{name} is not installed, needed to {why}", hint="Run: pip install 'edgekit[train]'"
        )


def _data(ask: Ask) -> None:
    part = ask.checked.recipe.data
    if not part.path:
        return
    file = data_file(ask)
    if isinstance(file, str):
        return
    places = [Path(str(file).replace("{split}", s)) for s in (part.calibration, part.validation)]
    if places[0].suffix == ".json" and places[0] == places[1]:
        raise RecipeError(
            f"{ask.checked.path}: data.path: {part.path} is one COCO file for both splits",
            hint="Write {split} where the files' names differ, such as instances_{split}.json: calibration never sees validation.",
        )
    for place in places:
        if not place.is_file():
            near = suggestion(part.path, GENERATED) if "/" not in part.path else "Check data.path."
            raise RecipeError(f"{ask.checked.path}: data.path: {place}: no such file", hint=near)
    if places[0].suffix in {".yaml", ".yml"}:
        form = read_form(places[0])
        for split in (part.calibration, part.validation):
            if not form.value.get(split):
                raise RecipeError(
                    f"{places[0]}: has no split {split!r}", hint=f"Add `{split}:` with its image folder."
                )


def _device(ask: Ask) -> None:
    # Refuses a release, version or accelerator that the device does not have.
    target = ask.target
    own = ask.passport.get("engines", {}).get("tensorrt", "") if ask.here else ""
    if target and own and own.split(".")[:2] != target.tensorrt.split(".")[:2]:
        raise RecipeError(
            f"{ask.where}: has TensorRT {own}, asked for was {target.tensorrt}",
            hint="Leave out --jetpack and --tensorrt, or compile for a profile without `ssh`.",
        )
    for precision in (ask.precision, ask.only_precision):
        if fault := refuse_backend(
            ask.profile, ask.only_backend, _offered(ask, precision), where="--precision"
        ):
            raise RecipeError(fault.partition(". ")[0], hint=fault.partition(". ")[2])


def _offered(ask: Ask, precision: str) -> str:
    half = precision == "fp16" and any(s.name == "to-fp16" for s in ask.checked.steps)
    return "" if half else precision


def _passes(ask: Ask) -> None:
    part = ask.checked.recipe.data
    names = [s.name for s in ask.checked.steps]
    if ask.only_precision == "int8" and "quantize-int8" not in names:
        raise RecipeError(
            f"{ask.checked.path}: int8 was asked for, and no pass quantizes",
            hint="Add `- quantize-int8: {max_drop: 0.01}` to passes.",
        )
    if grow_settings(ask):
        _grows(ask, names)
    for name in names:
        needs = pick("passes", name, what="pass").needs_samples
        if needs and not part.path and not part.allow_random and not is_pipeline(ask):
            raise RecipeError(
                f"{ask.checked.path}: passes.{name}: needs calibration samples and data.path is empty",
                hint="Give data.path, or set data.allow_random: true and expect to lose accuracy.",
            )


def _grows(ask: Ask, names: Sequence[str]) -> None:
    """Refuse what a student cannot be trained with."""
    where = f"{ask.checked.path}: passes.{GROW}"
    need_train()
    if names[0] != GROW:
        raise RecipeError(
            f"{where}: cuts the model in torch, {names[0]} changes its ONNX", hint=f"Put {GROW} first."
        )
    kept = [s for s in ask.checked.steps if getattr(s.settings, "keep_float", ())]
    if kept:
        raise RecipeError(
            f"{ask.checked.path}: passes.{kept[0].name}: keep_float names layers of the whole model, segments have their own",
            hint="Leave keep_float out; the accuracy of every step says what int8 costs.",
        )
    if not ask.checked.recipe.data.path:
        raise RecipeError(f"{where}: trains a student and data.path is empty", hint="Give data.path.")
    teacher = find_model(ask)
    student_of(ask, teacher)
    if not ask.checked.recipe.train and not teacher.settings["weights"]:
        raise RecipeError(
            f"{where}: {teacher.what} has no weights, there is nothing to lead to",
            hint="Give model.weights, or add a `train:` part that trains it first.",
        )


def _output(ask: Ask) -> None:
    refuse_foreign(ask.folder)
    place = ask.folder
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise RecipeError(f"{place}: is a file, not a folder", hint="Choose another folder with -o.")
    _refuse_unwritable(place)


def _refuse_unwritable(place: Path) -> None:
    if not os.access(place, os.W_OK | os.X_OK):
        raise ResourceError(
            f"{place}: may not be written",
            hint="Give write permission, or choose another folder (-o, --work-dir).",
        )


def _key(ask: Ask) -> None:
    if ask.sign_key:
        sign(b"", ask.sign_key)


def _disk(ask: Ask) -> None:
    place = ask.cache.root
    while not place.exists():
        place = place.parent
    _refuse_unwritable(place)
    free = shutil.disk_usage(place).free / 1e6
    if free < _FREE_MB:
        raise ResourceError(
            f"{place}: {free:.0f} MB free, a compile needs about {_FREE_MB} MB",
            hint="Free space there or set --work-dir to another disk.",
        )


def _extras(ask: Ask) -> None:
    need("onnx", extra="host", why="read models")
    need("onnxslim", extra="host", why="simplify")
    if not any(_engine(b) for b in ask.profile.backends):
        need("onnxruntime", extra="host", why="run variants")
    if ask.checked.recipe.data.path:
        need("pycocotools", extra="host", why="compute mAP")


def _engine(backend: str) -> bool:
    return backend != "tensorrt" and have(backend)
