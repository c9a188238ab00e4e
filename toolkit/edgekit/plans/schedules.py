"""Noise schedules of diffusion models: which steps there are, and what each makes of the network's answer.

DDIM (arXiv 2010.02502, eta 0), DPM-Solver++ 2M (arXiv 2211.01095, algorithm 2, midpoint) and latent consistency (arXiv
2310.04378) with the conventions of the files that diffusers writes (`scheduler_config.json`): spacing and offset of the steps,
the last alpha, what the network predicts. In numpy: float64 tables, float32 latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import RecipeError

Latents = NDArray[np.float32]
KINDS = ("ddim", "dpm++", "lcm")
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
# Those whose noise is that of DDPM; any of them may sample with any kind here.
_SCHEDULERS = (
    "DDIMScheduler", "PNDMScheduler", "DDPMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
    "DEISMultistepScheduler", "HeunDiscreteScheduler", "LCMScheduler", "KDPM2DiscreteScheduler",
)  # fmt: skip
_LCM_STEPS, _LCM_SCALE, _LCM_SIGMA = 50, 10.0, 0.5
_LEAST_ALPHA = 2.0**-24


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How noise was added in training.

    Attributes:
        train_steps: Steps of it.
        beta_start: First variance.
        beta_end: Last one.
        betas: "linear", "scaled_linear" or "squaredcos_cap_v2".
        predicts: "epsilon", "v_prediction" or "sample".
        spacing: Of the steps: "leading", "trailing" or "linspace".
        offset: Added to leading steps.
        last_alpha_one: Whether the step after the last is clean; else it has the noise of the first training step.
        clip: Largest value of a clean sample, 0 for none: pixels, not latents.
        rescaled: Whether the last training step was set to pure noise (`rescale_betas_zero_snr`).
    """

    train_steps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    betas: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    predicts: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    spacing: Literal["leading", "trailing", "linspace"] = "leading"
    offset: int = 0
    last_alpha_one: bool = True
    clip: float = 0.0
    rescaled: bool = False

    def alphas(self) -> NDArray[np.float64]:
        """Return the share of the signal's variance after each training step, (train_steps,)."""
        count = self.train_steps
        betas: NDArray[Any]
        if self.betas == "linear":
            betas = np.linspace(self.beta_start, self.beta_end, count)
        elif self.betas == "scaled_linear":
            betas = np.square(np.linspace(self.beta_start**0.5, self.beta_end**0.5, count), dtype=np.float64)
        else:
            bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * math.pi / 2) ** 2
            betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
        alphas: NDArray[np.float64] = np.cumprod(1 - betas)
        if self.rescaled:
            root = np.sqrt(alphas)
            alphas = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
            # Nothing of the signal is left; solvers take its logarithm (diffusers floors it so).
            alphas[-1] = _LEAST_ALPHA
        return alphas


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A way to sample.

    Attributes:
        kind: "ddim", "dpm++" or "lcm".
        steps: Of it.
        noise: Of the training.
    """

    kind: str
    steps: int
    noise: Noise

    def timesteps(self) -> NDArray[np.int64]:
        """Return the training steps that the network is asked at, from noise to picture."""
        noise, count = self.noise, self.noise.train_steps
        if self.kind == "lcm":
            origin = (np.arange(1, _LCM_STEPS + 1) * (count // _LCM_STEPS) - 1)[::-1]
            at = np.floor(np.linspace(0, len(origin), self.steps, endpoint=False)).astype(np.int64)
            return origin[at].astype(np.int64)
        more = int(self.kind == "dpm++")
        if noise.spacing == "linspace":
            spread = np.linspace(0, count - 1, self.steps + more).round()[::-1]
            return spread[: self.steps].astype(np.int64)
        if noise.spacing == "trailing":
            # The solver counts down to nothing, the other one to the first step.
            trailing = np.round(np.arange(count, 0, -count / self.steps)) - 1
            return trailing.astype(np.int64)[: self.steps]
        ratio = count // (self.steps + more)
        leading = (np.arange(0, self.steps + more) * ratio)[::-1] + noise.offset
        return leading[: self.steps].astype(np.int64)


Predict = Callable[[Latents, int], Latents]


def check_schedule(kind: str, steps: int, noise: Noise, *, where: str) -> Schedule:
    """Return a schedule.

    Raises:
        RecipeError: The kind is unknown, or it has no such number of steps.
    """
    if kind not in KINDS:
        raise RecipeError(f"{where}: no schedule {kind!r}", hint=f"There are: {', '.join(KINDS)}.")
    most = _LCM_STEPS if kind == "lcm" else noise.train_steps - 1
    if not 1 <= steps <= most:
        raise RecipeError(f"{where}: {steps} steps, {kind} has 1 to {most}", hint="Choose a number of those.")
    schedule = Schedule(kind=kind, steps=steps, noise=noise)
    asked = schedule.timesteps()
    if asked.min() < 0 or asked.max() >= noise.train_steps:
        raise RecipeError(
            f"{where}: {steps} steps of {kind} reach training step {asked.max()} of {noise.train_steps}",
            hint="Choose fewer.",
        )
    return schedule


def denoise(
    schedule: Schedule, latents: Latents, predict: Predict, *, rng: np.random.Generator,
    heard: Callable[[int, Latents, int], None] | None = None,
) -> Latents:  # fmt: skip
    """Return clean latents.

    Args:
        schedule: Steps.
        latents: Pure noise of variance 1.
        predict: The network's answer for latents at a training step.
        rng: Of the noise that latent consistency adds between steps.
        heard: Is told index, latents before it, and training step, of every step.
    """
    run = {"ddim": _ddim, "dpm++": _dpm, "lcm": _lcm}[schedule.kind]

    def asked(index: int, x: Latents, t: int) -> Latents:
        if heard:
            heard(index, x, t)
        return predict(x, t)

    return run(schedule, latents.astype(np.float32), asked, rng)


_Asked = Callable[[int, Latents, int], Latents]


def _clean(noise: Noise, x: Latents, answer: Latents, alpha: float) -> tuple[Latents, Latents]:
    """Return the clean sample and the noise that an answer stands for."""
    signal, rest = math.sqrt(alpha), math.sqrt(1 - alpha)
    clean: NDArray[Any]
    eps: NDArray[Any]
    if noise.predicts == "epsilon":
        clean, eps = (x - rest * answer) / signal, answer
    elif noise.predicts == "sample":
        clean, eps = answer, (x - signal * answer) / rest
    else:
        clean, eps = signal * x - rest * answer, signal * answer + rest * x
    if noise.clip:
        clean = np.clip(clean, -noise.clip, noise.clip)
    return clean.astype(np.float32), eps.astype(np.float32)


def _ddim(schedule: Schedule, x: Latents, asked: _Asked, rng: np.random.Generator) -> Latents:
    del rng
    noise, alphas = schedule.noise, schedule.noise.alphas()
    last = 1.0 if noise.last_alpha_one else float(alphas[0])
    stride = noise.train_steps // schedule.steps
    for k, t in enumerate(schedule.timesteps()):
        clean, eps = _clean(noise, x, asked(k, x, int(t)), float(alphas[t]))
        then = float(alphas[t - stride]) if t >= stride else last
        x = (math.sqrt(then) * clean + math.sqrt(1 - then) * eps).astype(np.float32)
    return x


def _dpm(schedule: Schedule, x: Latents, asked: _Asked, rng: np.random.Generator) -> Latents:
    """DPM-Solver++ 2M: the data prediction, extrapolated in half of the logarithm of the signal to noise ratio."""
    del rng
    noise = schedule.noise
    steps = schedule.timesteps()
    alphas = noise.alphas()[steps]
    # The last step leads to a picture without noise.
    signal = [*np.sqrt(alphas), 1.0]
    rest = [*np.sqrt(1 - alphas), 0.0]
    ratio = [math.log(a / s) if s else math.inf for a, s in zip(signal, rest, strict=True)]
    before: Latents | None = None
    for k, t in enumerate(steps):
        clean, _ = _clean(noise, x, asked(k, x, int(t)), float(alphas[k]))
        h = ratio[k + 1] - ratio[k]
        grown = -signal[k + 1] * math.expm1(-h)
        moved = (rest[k + 1] / rest[k]) * x + grown * clean
        if before is not None and k + 1 < len(steps):
            slope = (clean - before) / ((ratio[k] - ratio[k - 1]) / h)
            moved = moved + 0.5 * grown * slope
        x, before = moved.astype(np.float32), clean
    return x


def _lcm(schedule: Schedule, x: Latents, asked: _Asked, rng: np.random.Generator) -> Latents:
    noise, alphas = schedule.noise, schedule.noise.alphas()
    steps = [int(t) for t in schedule.timesteps()]
    for k, t in enumerate(steps):
        clean, _ = _clean(noise, x, asked(k, x, t), float(alphas[t]))
        scaled = t * _LCM_SCALE
        skip = _LCM_SIGMA**2 / (scaled**2 + _LCM_SIGMA**2)
        out = scaled / math.sqrt(scaled**2 + _LCM_SIGMA**2)
        x = (out * clean + skip * x).astype(np.float32)
        if k + 1 < len(steps):
            then = float(alphas[steps[k + 1]])
            fresh = rng.standard_normal(x.shape, np.float32)
            x = (math.sqrt(then) * x + math.sqrt(1 - then) * fresh).astype(np.float32)
    return x


def noise_from(config: Mapping[str, Any], *, where: str) -> Noise:
    """Return what a `scheduler_config.json` says of the noise.

    Raises:
        RecipeError: It asks for what is not known here.
    """
    betas, predicts = config.get("beta_schedule", "linear"), config.get("prediction_type", "epsilon")
    spacing = config.get("timestep_spacing", "leading")
    strange = {
        "beta_schedule": betas not in BETAS,
        "prediction_type": predicts not in PREDICTS,
        "timestep_spacing": spacing not in SPACINGS,
        "rescale_betas_zero_snr": bool(config.get("rescale_betas_zero_snr", False)) and predicts == "epsilon",
        "_class_name": config.get("_class_name", _SCHEDULERS[0]) not in _SCHEDULERS,
        "trained_betas": config.get("trained_betas") is not None,
        "thresholding": bool(config.get("thresholding", False)),
        "use_karras_sigmas": bool(config.get("use_karras_sigmas", False)),
    }  # fmt: skip
    if bad := [k for k, wrong in strange.items() if wrong]:
        raise RecipeError(
            f"{where}: {bad[0]}: {config.get(bad[0])!r} is not known here",
            hint="Write the pipeline with a DDIM, PNDM, DPM-Solver++ or LCM scheduler of usual settings.",
        )
    clip = config.get("clip_sample", False)
    return Noise(
        train_steps=int(config.get("num_train_timesteps", 1000)), beta_start=float(config.get("beta_start", 0.0001)),
        beta_end=float(config.get("beta_end", 0.02)), betas=betas, predicts=predicts, spacing=spacing,
        offset=int(config.get("steps_offset", 0)), last_alpha_one=bool(config.get("set_alpha_to_one", True)),
        clip=float(config.get("clip_sample_range", 1.0)) if clip else 0.0,
        rescaled=bool(config.get("rescale_betas_zero_snr", False)),
    )  # fmt: skip
