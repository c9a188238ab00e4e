"""Run a diffusion pipeline in torch for calibration and probes: the real sampler, the real prompts, seeds that are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need
from edgekit.core.watch import watcher
from edgekit.models.pipelines import Pipeline, answer
from edgekit.plans.diffusion import guided, noise_of
from edgekit.plans.schedules import Latents, Schedule, denoise


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What is sampled.

    Attributes:
        pipeline: Of it.
        shape: Of one latent, (C, h, w).
        wanted: Conditions, (N, …).
        blank: Condition that stands for none, (1, …).
        schedule: Steps.
        guidance: 1 or less for none.
        seeds: One a picture.
        batch: Pictures that run together.
    """

    pipeline: Pipeline
    shape: tuple[int, int, int]
    wanted: NDArray[Any]
    blank: NDArray[Any] | None
    schedule: Schedule
    guidance: float
    seeds: tuple[int, ...]
    batch: int = 8


@dataclass(kw_only=True)
class Seen:
    """Latents and steps that were recorded on the way, with the parts of the conditions they belong to."""

    latents: list[Latents] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    parts: list[slice] = field(default_factory=list)


def walked(
    network: Any, walk: Walk, *, before: Callable[[int, int], None] | None = None, seen: Seen | None = None,
    record: Sequence[int] = (), name: str = "",
) -> Latents:  # fmt: skip
    """Return the final latents of every picture, (N, C, h, w).

    Args:
        network: In torch.
        walk: What is sampled.
        before: Is told picture and index of every step.
        seen: Gets the latents before the steps in `record`.
        record: Indices of steps.
        name: What the watcher is told; nothing where empty.
    """
    found = []
    for first in range(0, len(walk.seeds), walk.batch):
        part = slice(first, min(first + walk.batch, len(walk.seeds)))
        predict = guided(_run(network, walk.pipeline), walk.wanted[part], walk.blank, walk.guidance)
        found.append(
            denoise(
                walk.schedule, begin(walk, part), predict, rng=np.random.default_rng([first, 1]),
                heard=_heard(part, before, seen, record),
            )
        )  # fmt: skip
        if name:
            watcher().step(name, part.stop, len(walk.seeds))
    return np.concatenate(found)


def _heard(
    part: slice, before: Callable[[int, int], None] | None, seen: Seen | None, record: Sequence[int]
) -> Callable[[int, Latents, int], None]:
    def heard(index: int, x: Latents, t: int) -> None:
        if before:
            before(part.start, index)
        if seen is not None and index in record:
            seen.latents.append(x.copy())
            seen.steps.append(t)
            seen.parts.append(part)

    return heard


@contextmanager
def quick_threads(network: Any, walk: Walk) -> Iterator[None]:
    """Let torch use one thread inside the block where that is faster: of a small network, or on a machine that is busy."""
    torch = need("torch", extra="diffusion")
    before = torch.get_num_threads()
    part = slice(0, min(walk.batch, len(walk.seeds)))
    x, run = begin(walk, part), _run(network, walk.pipeline)

    def took(threads: int) -> float:
        torch.set_num_threads(threads)
        times = []
        for _ in range(2):
            begun = time.perf_counter()
            run(x, 500, walk.wanted[part])
            times.append(time.perf_counter() - begun)
        return min(times)

    try:
        torch.set_num_threads(min((1, before), key=took) if before > 1 else before)
        yield
    finally:
        torch.set_num_threads(before)


def begin(walk: Walk, part: slice) -> Latents:
    """Return the noise that pictures begin with."""
    return np.concatenate([noise_of(walk.shape, s) for s in walk.seeds[part]])


def _run(network: Any, pipeline: Pipeline) -> Callable[[Latents, int, NDArray[Any]], Latents]:
    def run(x: Latents, t: int, condition: NDArray[Any]) -> Latents:
        found: Latents = answer(network, pipeline, x, t, condition)
        return found

    return run


def answers_at(network: Any, walk: Walk, seen: Seen, *, guidance: float | None = None) -> Latents:
    """Return the network's answers at recorded latents, flat.

    Args:
        network: In torch.
        walk: What was sampled.
        seen: What was recorded of it.
        guidance: Instead of the walk's.
    """
    strength = walk.guidance if guidance is None else guidance
    found = [
        guided(_run(network, walk.pipeline), walk.wanted[part], walk.blank, strength)(x, t).ravel()
        for x, t, part in zip(seen.latents, seen.steps, seen.parts, strict=True)
    ]
    return np.concatenate(found)


def apart(found: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Return the relative squared error."""
    a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(((a - b) ** 2).sum() / max(float((b**2).sum()), 1e-30))


def evenly(count: int, steps: int) -> tuple[int, ...]:
    """Return indices of about `count` of `steps` steps, evenly spread, the first and the last among them."""
    return tuple(sorted({round(k) for k in np.linspace(0, steps - 1, min(count, steps))}))
