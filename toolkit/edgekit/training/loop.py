"""Train a network: epochs of seeded steps, each epoch kept whole, the best one remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from edgekit.core.errors import RecipeError
from edgekit.core.files import write_bytes
from edgekit.core.watch import watcher
from edgekit.training.batches import Batches
from edgekit.training.criterion import criterion_of
from edgekit.training.curve import Sensed
from edgekit.training.distill import check_teacher, distill_loss, heard
from edgekit.training.layout import layout_of
from edgekit.training.schedule import copied, move_average, optimizer_of, rate
from edgekit.training.settings import TrainPart
from edgekit.training.slide import SlideBCE
from edgekit.training.state import State, restore_state, save_state
from edgekit.training.windows import Windows

STATE, BEST = "state.safetensors", "best.safetensors"


@dataclass(kw_only=True)
class Run:
    """One training run.

    Attributes:
        model: An ultralytics detection model or a classifier, freshly built; `Sensed` where a sensor's curve is
            learned with it.
        batches: Its training images or signals.
        settings: Of the recipe.
        work: Folder of its checkpoints; a run that finds some there goes on from them.
        judge: Gives the metric of a model, higher is better; None judges nothing.
        bf16: Whether the forward pass runs in bfloat16.
        teacher: A detector to learn from.
        apart: Groups of parameters with a rate of their own; see `optimizer_of`.
        criterion: The loss; None takes the model's own.
        clip: Largest norm of the gradient.
    """

    model: Any
    batches: Batches | Windows
    settings: TrainPart
    work: Path
    judge: Callable[[Any], float] | None = None
    bf16: bool = False
    teacher: Any = None
    apart: Sequence[dict[str, Any]] = ()
    criterion: Any = None
    clip: float = 10.0
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.layout = layout_of(self.model)
        self.model = self.model.to(self.device, memory_format=self.layout)
        for name, p in self.model.named_parameters():
            p.requires_grad = ".dfl" not in name
        self.optimizer = optimizer_of(self.model, self.settings, apart=self.apart)
        self.front = self.model.front if isinstance(self.model, Sensed) else None
        if self.criterion is None:
            self.criterion = criterion_of(self.model.net if self.front else self.model, self.settings)
        self.average = copied(self.model)
        if self.teacher is not None:
            check_teacher(self.model, self.teacher)
            self.teacher = self.teacher.to(self.device, memory_format=self.layout).eval()

    def train(self) -> dict[str, Tensor]:
        """Train to the end and return the weights of the best epoch, float32 on the CPU.

        Raises:
            RecipeError: The loss is no number any more.
        """
        settings, kept = self.settings, self.work / STATE
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if kept.exists():
            slide = self._slide()
            self.state = restore_state(kept, self.model, self.average, self.optimizer, slide)
            watcher().note(f"training goes on after epoch {self.state.epoch} of {settings.epochs}")
        while self.state.epoch < settings.epochs:
            self._epoch(self.state.epoch)
        return load_file(self.work / BEST)

    def _slide(self) -> SlideBCE | None:
        return self.criterion.bce if isinstance(self.criterion.bce, SlideBCE) else None

    def _epoch(self, number: int) -> None:
        began, per_epoch = time.perf_counter(), self.batches.per_epoch
        self.model.train()
        sums = dict.fromkeys((*self.criterion.loss_names, *(("distill_loss",) if self.teacher else ())), 0.0)
        lr = 0.0
        for place, batch in enumerate(self.batches.epoch(number)):
            lr = self._set_rate(number * per_epoch + place)
            for name, value in self._step(batch, number * per_epoch + place).items():
                sums[name] += value / per_epoch
            watcher().step("training", number * per_epoch + place + 1, self.settings.epochs * per_epoch)
        self._close(number, sums, lr, time.perf_counter() - began)

    def _set_rate(self, step: int) -> float:
        per_epoch = self.batches.per_epoch
        warmup = round(self.settings.warmup_epochs * per_epoch)
        found = rate(step, self.settings.epochs * per_epoch, warmup, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = found * group.get("factor", 1.0)
        return found

    def _step(self, batch: dict[str, Tensor], step: int) -> dict[str, float]:
        """Do one step of gradient descent; return the parts of the loss."""
        batch = {k: v.to(self.device) for k, v in batch.items()}
        images = batch["img"]
        if not self.front:
            images = images.to(memory_format=self.layout).float().div_(255)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            found = self.model(images)
            taught = heard(self.teacher, images) if self.teacher is not None else None
        # Losses are not computed in bfloat16: its steps near 1 are 0.008.
        if isinstance(found, Tensor):
            found = found.float()
        else:
            found = {k: v.float() if isinstance(v, Tensor) else v for k, v in found.items()}
        # Draws of a loss are keyed by the step, so that a run which goes on draws as one that never stopped.
        loss, parts = self.criterion.loss(found, {**batch, "step": step})
        loss = loss.sum()
        said = {k: float(v) for k, v in parts.items()}
        if taught is not None:
            extra = distill_loss(found, taught, self.settings.distill)
            loss, said["distill_loss"] = loss + extra * len(images), float(extra.detach())
        if not torch.isfinite(loss):
            raise RecipeError(f"train: the loss became {float(loss)} at step {step}", hint="Lower train.lr.")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        move_average(self.average, self.model, step, self.settings.average)
        return said

    def _close(self, number: int, sums: dict[str, float], lr: float, seconds: float) -> None:
        """Judge the epoch, remember it if it is the best, and keep the whole state."""
        state, metric = self.state, None
        if self.judge is not None:
            with _averaged(self.model, self.average) as model:
                metric = self.judge(model)
        state.epoch = number + 1
        state.history.append(
            {
                "epoch": number + 1, **sums, "lr": lr, "metric": metric, "seconds": round(seconds, 2),
                **({"curve": self.front.learned()} if self.front else {}),
            }
        )  # fmt: skip
        if metric is None or metric >= state.best:
            state.best, state.best_epoch = -1.0 if metric is None else metric, number + 1
            plain = {k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in self.average.items()}
            write_bytes(self.work / BEST, save(plain))
        slide = self._slide()
        save_state(
            self.work / STATE, state, self.model, self.average, self.optimizer,
            slide.state_dict() if slide else {},
        )  # fmt: skip
        found = f", metric {metric:.4f}" if metric is not None else ""
        parts = ", ".join(f"{k.removesuffix('_loss')} {v:.3f}" for k, v in sums.items())
        watcher().note(f"epoch {number + 1} of {self.settings.epochs}: {parts}{found} ({seconds:.0f} s)")


@contextmanager
def _averaged(model: Any, weights: dict[str, Tensor]) -> Iterator[Any]:
    """Give the model in eval mode with other weights; its own come back at the end."""
    own = copied(model)
    model.load_state_dict(weights)
    try:
        yield model.eval()
    finally:
        model.load_state_dict(own)
        model.train()
