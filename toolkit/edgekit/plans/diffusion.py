"""How the parts of a diffusion pipeline run together: what a bundle's `diffusion.json` says, and guidance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import RecipeError, VerificationError
from edgekit.frames.tokens import MERGES, VOCAB
from edgekit.plans.progressive import Segment
from edgekit.plans.schedules import BETAS, KINDS, PREDICTS, SPACINGS, Latents, Noise, Predict

PLAN, SCHEMA, FILE = "diffusion", "edgekit/diffusion/v1", "diffusion.json"
TEXT, NETWORK, DECODER = "text_encoder", "main", "decoder"
TOKENIZER = "tokenizer"
Run = Callable[[Latents, int, NDArray[Any]], Latents]


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """A diffusion pipeline as a bundle holds it.

    Attributes:
        parts: Files by name: "main" predicts noise, "text_encoder" reads prompts, "decoder" makes pixels.
        conditions: "text" or "class".
        latents: Shape of what is denoised, (C, h, w).
        noise: How the network was trained.
        schedule: Used where a caller names none.
        steps: The same.
        guidance: The same: how far the answer is pushed away from that without a prompt; 1 for not at all.
        length: Tokens of a prompt.
        pad: Token that fills it up.
        labels: Names of the classes.
        blank: Class that stands for none, -1 where there is none.
        batch: Latents that the network's file takes at a time.
    """

    parts: Mapping[str, Segment]
    conditions: str
    latents: tuple[int, int, int]
    noise: Noise
    schedule: str
    steps: int
    guidance: float
    length: int = 0
    pad: str = ""
    labels: tuple[str, ...] = ()
    blank: int = -1
    batch: int = 1

    @property
    def files(self) -> list[str]:
        """Every file of it, in the order in which they are needed."""
        return [f for s in self.parts.values() for f in s.files] + [
            f"{TOKENIZER}/{n}" for n in (VOCAB, MERGES) if self.length
        ]


def diffusion_data(one: Diffusion) -> dict[str, Any]:
    """Return a pipeline as `diffusion.json` holds it."""
    return {"schema": SCHEMA, **asdict(one), "parts": [asdict(s) for s in one.parts.values()]}


def diffusion_from(text: str, *, where: str) -> Diffusion:
    """Return what a `diffusion.json` says.

    Raises:
        VerificationError: It is none, or contradicts itself.
    """
    try:
        given = dict(json.loads(text))
        schema = given.pop("schema")
        if schema != SCHEMA:
            raise VerificationError(
                f"{where}: schema {schema!r}, this edgekit reads {SCHEMA!r}",
                hint="Use the edgekit version that wrote the bundle.",
            )
        parts = {
            s["name"]: Segment(**{**s, "inputs": tuple(s["inputs"]), "outputs": tuple(s["outputs"])})
            for s in given.pop("parts")
        }
        one = Diffusion(
            parts=parts, noise=Noise(**given.pop("noise")), latents=tuple(given.pop("latents")),
            labels=tuple(given.pop("labels")), **given,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerificationError(f"{where}: is damaged ({error!r})", hint="Fetch the bundle again.") from error
    if fault := _fault(one):
        raise VerificationError(f"{where}: contradicts itself: {fault}", hint="Fetch the bundle again.")
    return one


def _fault(one: Diffusion) -> str:
    """Return what is wrong with a pipeline that was read, empty where nothing is."""
    takes = {TEXT: 1, NETWORK: 3, DECODER: 1}
    wanted = {NETWORK} | ({TEXT} if one.conditions == "text" else set())
    noise, numbers = one.noise, (one.steps, one.batch, *one.latents)
    checks = {
        f"parts {sorted(one.parts)}": not wanted <= set(one.parts) <= set(takes),
        "a part's inputs or outputs": any(len(p.inputs) != takes.get(n, -1) or len(p.outputs) != 1 for n, p in one.parts.items()),
        f"conditions {one.conditions!r}": one.conditions not in {"text", "class"}, f"schedule {one.schedule!r}": one.schedule not in KINDS,
        f"numbers {numbers}": len(one.latents) != 3 or any(not isinstance(v, int) or v < 1 for v in numbers),
        f"noise {noise}": noise.betas not in BETAS or noise.predicts not in PREDICTS or noise.spacing not in SPACINGS,
    }  # fmt: skip
    return next((what for what, wrong in checks.items() if wrong), "")


def guided(run: Run, wanted: NDArray[Any], blank: NDArray[Any] | None, guidance: float) -> Predict:
    """Return the network's answer with classifier-free guidance (arXiv 2207.12598).

    Args:
        run: The network, for any number of latents.
        wanted: Conditions, (N, …).
        blank: Conditions that stand for none, (1, …); None where there are none.
        guidance: 1 or less asks for the wanted ones alone.
    """
    if guidance <= 1 or blank is None:
        return lambda x, t: run(x, t, wanted)
    both = np.concatenate([np.repeat(blank, len(wanted), axis=0), wanted])

    def predict(x: Latents, t: int) -> Latents:
        without, with_ = np.split(run(np.concatenate([x, x]), t, both), 2)
        return (without + guidance * (with_ - without)).astype(np.float32)

    return predict


def noise_of(shape: tuple[int, ...], seed: int) -> Latents:
    """Return the latents that a picture begins with: the same seed gives the same on every machine."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)[None]


def class_of(labels: tuple[str, ...], prompt: str) -> int:
    """Return the class that a prompt names, by its label or number.

    Raises:
        RecipeError: There is no such class.
    """
    wanted = prompt.strip()
    if wanted in labels:
        return labels.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(labels):
        return int(wanted)
    near = ", ".join(labels[:5])
    raise RecipeError(f"prompt {prompt!r}: no such class", hint=f"There are {len(labels)}: {near}, …")
