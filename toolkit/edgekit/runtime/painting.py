"""Make pictures from prompts with the parts of a diffusion pipeline: no torch, no diffusers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.protocol import Session
from edgekit.core.errors import RecipeError
from edgekit.core.watch import watcher
from edgekit.frames.tokens import Tokens, read_tokens
from edgekit.plans.diffusion import DECODER, NETWORK, TEXT, TOKENIZER, Diffusion, class_of, guided, noise_of
from edgekit.plans.progressive import Segment
from edgekit.plans.schedules import Latents, check_schedule, denoise

_STATES = 8


@dataclass(frozen=True, kw_only=True)
class Painted:
    """What was made.

    Attributes:
        images: (N, H, W, 3) uint8, RGB.
        latents: What they were decoded from, (N, C, h, w) float32.
        steps: Times the network was asked for each picture.
        step_ms: Milliseconds of single steps, in order.
        ms: Milliseconds of each picture, prompt to pixels.
    """

    images: NDArray[np.uint8]
    latents: Latents
    steps: int
    step_ms: tuple[float, ...]
    ms: tuple[float, ...]


class Painting:
    """An open diffusion pipeline; a context manager. Let one thread at a time use it.

    Args:
        plan: What the parts are.
        sessions: An open engine for each part.
        tokens: Of a text-conditional model.
    """

    def __init__(self, plan: Diffusion, sessions: Mapping[str, Session], tokens: Tokens | None) -> None:
        self.plan, self._sessions, self._tokens = plan, dict(sessions), tokens
        self._states: dict[str, NDArray[np.float32]] = {}
        self._names = {n: plan.parts[n].inputs for n in plan.parts}
        self._outputs = {n: plan.parts[n].outputs[0] for n in plan.parts}

    def __enter__(self) -> Painting:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the engines."""
        for session in self._sessions.values():
            session.__exit__()

    def paint(
        self, prompts: Sequence[str], *, negative: str = "", seed: int = 0, steps: int = 0, guidance: float | None = None,
        schedule: str = "", latents: Latents | None = None, heard: Callable[[int, int], None] | None = None,
    ) -> Painted:  # fmt: skip
        """Return one picture a prompt.

        Args:
            prompts: What there shall be; of a class-conditional model labels or numbers of classes.
            negative: What there shall not be; text-conditional models with guidance alone.
            seed: Of the first picture's noise; the next ones take the next seeds.
            steps: Instead of the bundle's.
            guidance: The same.
            schedule: ddim, dpm++ or lcm, instead of the bundle's.
            latents: Noise to begin with, (N, C, h, w), instead of the seeds'.
            heard: Is told picture, and how many of its steps are done.

        Raises:
            RecipeError: A prompt is empty or names no class, or a number is out of range.
        """
        plan = self.plan
        chosen = check_schedule(schedule or plan.schedule, steps or plan.steps, plan.noise, where="generate")
        strength = plan.guidance if guidance is None else guidance
        self._refuse(prompts, negative, strength, seed)
        given = self._begin(len(prompts), seed, latents)
        found, images, times, step_ms = [], [], [], []
        for k, prompt in enumerate(prompts):
            begun = time.perf_counter_ns()
            self._note_dropped(prompt, negative)
            wanted, blank = self._conditions(prompt, negative, strength)
            predict = guided(self._network, wanted, blank, strength)

            def asked(x: Latents, t: int, k: int = k, predict: Any = predict) -> Latents:
                at = time.perf_counter_ns()
                answer: Latents = predict(x, t)
                step_ms.append((time.perf_counter_ns() - at) / 1e6)
                if heard:
                    heard(k, len(step_ms) - k * chosen.steps)
                return answer

            clean = denoise(chosen, given[k : k + 1], asked, rng=np.random.default_rng([seed + k, 1]))
            found.append(clean)
            images.append(self._pixels(clean))
            times.append((time.perf_counter_ns() - begun) / 1e6)
        return Painted(
            images=np.concatenate(images), latents=np.concatenate(found), steps=chosen.steps, step_ms=tuple(step_ms),
            ms=tuple(times),
        )  # fmt: skip

    def _note_dropped(self, *prompts: str) -> None:
        if self._tokens is None:
            return
        for said in prompts:
            if rest := self._tokens.dropped(said):
                watcher().note(f"prompt {said[:40]!r}…: its last {rest} tokens do not fit and are left out")

    def _begin(self, count: int, seed: int, latents: Latents | None) -> Latents:
        if latents is None:
            return np.concatenate([noise_of(self.plan.latents, seed + k) for k in range(count)])
        shape = (count, *self.plan.latents)
        if latents.shape != shape:
            raise RecipeError(
                f"latents: {latents.shape} given, {shape} wanted", hint="Give one for each prompt."
            )
        return np.asarray(latents, np.float32)

    def _refuse(self, prompts: Sequence[str], negative: str, guidance: float, seed: int) -> None:
        if not prompts or not all(p.strip() for p in prompts):
            raise RecipeError("prompt: is empty", hint="Say what the picture shall show.")
        if negative and (self.plan.conditions != "text" or guidance <= 1):
            raise RecipeError(
                "negative: goes with guidance above 1 and text-conditional models alone", hint="Leave it out."
            )
        if seed < 0:
            raise RecipeError(f"seed: {seed} is below 0", hint="Give 0 or more.")
        if guidance > 1 and self.plan.conditions == "class" and self.plan.blank < 0:
            raise RecipeError(
                "guidance: the model has no class that stands for none", hint="Set guidance to 1."
            )
        if not 0 <= guidance <= 100:
            raise RecipeError(f"guidance: {guidance:g} is not 0 to 100", hint="1 is none, 3 to 8 is usual.")

    def _conditions(
        self, prompt: str, negative: str, guidance: float
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        plan = self.plan
        if plan.conditions == "text":
            return self._text(prompt), self._text(negative) if guidance > 1 else None
        wanted = np.array([class_of(plan.labels, prompt)], np.int64)
        return wanted, np.array([plan.blank], np.int64) if plan.blank >= 0 else None

    def _text(self, prompt: str) -> NDArray[np.float32]:
        if prompt not in self._states:
            assert self._tokens is not None
            # The last few are kept, the one without words among them; a server must not keep them all.
            while len(self._states) >= _STATES:
                del self._states[next(p for p in self._states if p)]
            self._states[prompt] = self._run(TEXT, self._tokens.encode(prompt))
        return self._states[prompt]

    def _run(self, part: str, *values: NDArray[Any]) -> NDArray[np.float32]:
        given = dict(zip(self._names[part], values, strict=True))
        found: Any = self._sessions[part].infer(given)[self._outputs[part]]
        return np.asarray(found, np.float32)

    def _network(self, x: Latents, t: int, condition: NDArray[Any]) -> Latents:
        """Return the network's answers, as many at a time as its file takes."""
        size = self.plan.batch
        parts = []
        for first in range(0, len(x), size):
            part, said = x[first : first + size], condition[first : first + size]
            short = size - len(part)
            if short:
                part, said = (np.concatenate([v, np.repeat(v[-1:], short, axis=0)]) for v in (part, said))
            parts.append(self._run(NETWORK, part, np.array([t], np.float32), said)[: size - short])
        return np.concatenate(parts)

    def _pixels(self, latents: Latents) -> NDArray[np.uint8]:
        if DECODER in self._sessions:
            pixels = self._run(DECODER, latents)
        else:
            pixels = np.clip(latents / 2 + 0.5, 0, 1)
            pixels = np.repeat(pixels, 3, axis=1) if pixels.shape[1] == 1 else pixels
        return np.rint(pixels.transpose(0, 2, 3, 1) * 255).astype(np.uint8)


def open_painting(
    plan: Diffusion, folder: Path, opened: Callable[[Segment], Session], *, watch: Callable[[str, Session], Session] | None = None
) -> Painting:  # fmt: skip
    """Return a pipeline with an open engine for every part; where one does not open, the others are freed.

    Args:
        plan: What the parts are.
        folder: Holds the tokenizer.
        opened: Opens a part.
        watch: Wraps the session of each part, by its name, to see what goes in.
    """
    tokens = None
    if plan.conditions == "text":
        tokens = read_tokens(folder / TOKENIZER, length=plan.length, pad=plan.pad)
    sessions: dict[str, Session] = {}
    try:
        for name, part in plan.parts.items():
            sessions[name] = opened(part)
    except BaseException:
        for session in sessions.values():
            session.__exit__()
        raise
    if watch:
        sessions = {n: watch(n, s) for n, s in sessions.items()}
    return Painting(plan, sessions, tokens)
