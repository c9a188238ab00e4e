"""Train a student that answers first and leads to its teacher; kept by the content of all it learned from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.core import versions
from edgekit.core.digest import digest_value
from edgekit.core.errors import RecipeError
from edgekit.core.files import resource_errors, write_bytes, write_json
from edgekit.core.lazy import need
from edgekit.core.lock import locked
from edgekit.core.watch import watcher
from edgekit.data.sample import Split
from edgekit.jobs.accuracy import metric_of
from edgekit.jobs.ask import Ask
from edgekit.jobs.data import digests
from edgekit.jobs.train import (
    ROOMS,
    batches_of,
    judge_of,
    label_digest,
    need_train,
    side_of,
    splits_of,
    within_memory,
)  # fmt: skip
from edgekit.models.find import find_by_name
from edgekit.models.records import Source
from edgekit.passes.protocol import Grown
from edgekit.training.settings import TrainPart

NAME = "progressive-load"
WEIGHTS, RECORD = "pair.safetensors", "grow.json"
# Rule of the authors' code: mixed networks give large gradients at first.
_CLIP = 5.0
_JUDGED = 1000


def grow_settings(ask: Ask) -> Any:
    """Return the settings of the recipe's progressive-load, None where it has none."""
    return next((s.settings for s in ask.checked.steps if s.name == NAME), None)


def student_of(ask: Ask, teacher: Source) -> Source:
    """Return the student, found but not built.

    Raises:
        RecipeError: The catalogue has no such model, or weights do not fit.
    """
    settings = grow_settings(ask)
    if teacher.kind not in {"ultralytics", "classifier"} or not teacher.settings.get("architecture"):
        raise RecipeError(
            f"{ask.checked.path}: passes.{NAME}: {teacher.what} is no model of the catalogue, it cannot be cut into stages",
            hint="Name the model (`model.name`) and give its weights.",
        )
    weights = ask.checked.beside(settings.student_weights) if settings.student_weights else None
    name = settings.student or teacher.what
    options = {**(teacher.settings["options"] if name == teacher.what else {}), **settings.options}
    found = find_by_name(name, weights=weights, nc=int(teacher.settings["nc"]), options=options)
    if found.kind != teacher.kind:
        raise RecipeError(
            f"{ask.checked.path}: passes.{NAME}: student: {name} is of another kind than {teacher.what}",
            hint="Take a student of the teacher's family.",
        )
    return found


def grow(ask: Ask, teacher: Source) -> Grown:
    """Return the trained student with its converters, and the accuracy of every step.

    Args:
        ask: The compile.
        teacher: With its weights.

    Raises:
        RecipeError: The two do not go together, the teacher has no weights, or the loss diverged.
        MissingError: The train extra is not installed.
    """
    need_train()
    settings, student = grow_settings(ask), student_of(ask, teacher)
    if not teacher.settings["weights"]:
        raise RecipeError(
            f"{ask.checked.path}: passes.{NAME}: {teacher.what} has no weights, there is nothing to lead to",
            hint="Give model.weights, or add a `train:` part that trains it first.",
        )
    part = _schedule(ask, settings)
    watcher().phase("training data")
    # Where no epoch is judged, the end is: which steps are taken at all rests on it.
    train, val = splits_of(ask, replace(part, val_images=part.val_images or _JUDGED))
    metric, side = metric_of(ask, train), side_of(ask, part)
    inputs = _inputs((teacher, student), settings, part, (train, val), (side, metric))
    work = ask.cache.root / "training" / digest_value(inputs)[:32]
    made = False

    def make(folder: Path) -> None:
        nonlocal made
        made = True
        watcher().phase("training the student")
        with resource_errors(work), locked(work, hint="Wait for it, or train elsewhere with --work-dir."):
            if not ask.cache.reuse:
                shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True, exist_ok=True)
            told = (teacher, student), (train, val), (side, metric)
            train_pair(part, settings, *told, work, folder, isa=ask.host.get("isa", []))

    folder = ask.cache.step("grow", inputs, make)
    if made:
        shutil.rmtree(work, ignore_errors=True)
    record = json.loads((folder / RECORD).read_text())
    return Grown(
        teacher=teacher, student=student, weights=folder / WEIGHTS, metric=metric,
        accuracy=tuple(record["accuracy_by_k"]), history=tuple(record["history"]),
    )  # fmt: skip


def _inputs(
    pair: tuple[Source, Source],
    settings: Any,
    part: TrainPart,
    splits: tuple[Split, Split],
    judged: tuple[int, str],
) -> dict[str, Any]:
    """Return everything the trained student depends on."""
    teacher, student = pair
    train, val = splits
    side, metric = judged
    return {
        "teacher": {**vars(teacher), "path": "", "settings": {**teacher.settings, "weights": ""}},
        "student": {**vars(student), "path": "", "settings": {**student.settings, "weights": ""}},
        "settings": settings, "schedule": replace(part, threads=0, teacher_weights=""), "side": side, "metric": metric,
        "images": digests(train.samples), "labels": label_digest(train), "judged": [digests(val.samples), label_digest(val)],
        "code": versions.code(*ROOMS), "tools": versions.versions("torch", "torchvision", "timm", "ultralytics"),
    }  # fmt: skip


def _schedule(ask: Ask, settings: Any) -> TrainPart:
    """Return the student's schedule: the pass's own words over the recipe's `train:`, its authors' where nobody says."""
    # arXiv 2509.22319, authors' code: SGD, momentum 0.9, weight decay 5e-4, cosine.
    usual = TrainPart(
        schedule="cosine", momentum=0.9, final_lr=0.05, average=0.0, mosaic=0.0, imgsz=ask.side or 640
    )
    base = ask.checked.recipe.train or usual
    return replace(
        base, epochs=settings.epochs, batch=settings.batch, lr=settings.lr, optimizer=settings.optimizer, loss="bce",
        teacher="", teacher_weights="", warmup_epochs=min(base.warmup_epochs, settings.epochs / 10),
        close_mosaic=min(base.close_mosaic, settings.epochs),
    )  # fmt: skip


def train_pair(
    part: TrainPart, settings: Any, nets: tuple[Source, Source], splits: tuple[Split, Split],
    judged: tuple[int, str], work: Path, out: Path, *, isa: Sequence[str],
) -> None:  # fmt: skip
    """Run the loop and write the pair (`pair.safetensors`) and its record (accuracy of every step) into `out`.

    Args:
        part: The schedule.
        settings: Of the pass.
        nets: Teacher, with its weights, and student.
        splits: Training and validation samples.
        judged: Side of the input in pixels and name of the metric.
        work: Folder for checkpoints; a run that was cut goes on from there.
        out: Folder for what comes out.
        isa: Of this machine's CPU.
    """
    from edgekit.training.criterion import criterion_of
    from edgekit.training.distillation.build import pair_of
    from edgekit.training.distillation.criterion import Distilled
    from edgekit.training.distillation.masks import prefix_masks
    from edgekit.training.distillation.pair import Mixed
    from edgekit.training.distillation.tasks import Boxes, Classes
    from edgekit.training.loop import Run
    from edgekit.training.start import in_bf16
    from edgekit.training.terms.protocol import Weights

    (train, val), (side, metric) = splits, judged
    pair, network = pair_of(
        *nets, shape=(3, side, side), stages=settings.stages, count=settings.count, seed=part.seed
    )
    pair.bf16 = nets[0].kind == "ultralytics" and in_bf16(part.precision, isa)
    task: Any = Classes(tau=settings.tau) if train.task == "classify" else Boxes(criterion_of(network, part))
    weights = Weights(alpha=settings.alpha, sync=settings.sync, recon=settings.recon, cross=settings.cross)
    judge = judge_of(val, side, metric)
    masks = prefix_masks(pair.stages)

    def by_step(model: Any) -> list[float]:
        return [judge(Mixed(model, m)) for m in masks]

    converters = [p for held in (pair.encoders, pair.decoders) for p in held.parameters()]
    run = Run(
        model=pair, batches=batches_of(train, part, side), settings=part, work=work, clip=_CLIP,
        # The path is as good as its mean; the teacher's end of it does not change.
        judge=(lambda model: sum(by_step(model)[:-1]) / (len(masks) - 1)) if part.val_images else None,
        bf16=pair.bf16, criterion=Distilled(pair, task, weights, masks=settings.masks, seed=part.seed),
        apart=[{"params": converters, "weight_decay": part.weight_decay, "factor": settings.converter_rate}] if converters else (),
    )  # fmt: skip
    tensors = within_memory(run)
    pair.load_state_dict(tensors)
    record = {
        "accuracy_by_k": by_step(pair.eval()), "masks": list(masks), "metric": metric, "history": run.state.history,
        "best_epoch": run.state.best_epoch, "images": len(train.samples), "judged_on": len(val.samples),
    }  # fmt: skip
    write_json(out / RECORD, record)
    write_bytes(out / WEIGHTS, _packed(tensors))


def _packed(tensors: Mapping[str, Any]) -> bytes:
    """Return the pair as safetensors, in float32: what was judged is what is exported."""
    save = need("safetensors.torch", extra="train").save
    made: bytes = save({k: tensors[k].contiguous() for k in sorted(tensors)})
    return made
