"""What every compression pass can do, and what it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor
from edgekit.core.records import Network, QuantPlan
from edgekit.models.pipelines import Pipeline
from edgekit.models.records import Source

Arrays = Mapping[str, NDArray[np.generic]]
Candidate = tuple[Network, QuantPlan | None]


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A student that was trained to lead to its teacher.

    Attributes:
        teacher: With its weights.
        student: As it was built.
        weights: Student and converters, a safetensors file.
        metric: What `accuracy` is.
        accuracy: Of each step from all student to all teacher, in torch, on validation samples.
        history: One entry an epoch.
    """

    teacher: Source
    student: Source
    weights: Path
    metric: str
    accuracy: tuple[float, ...]
    history: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A diffusion pipeline with what it is asked for.

    Attributes:
        pipeline: Found, not loaded.
        shape: Of what is denoised, (C, h, w).
        prompts: Pool that calibration picks from.
        held_out: Prompts that nothing is fitted to.
        schedule: Sampler that pictures are made with.
        steps: Of it.
        guidance: 1 for none.
        seed: Of every draw.
        opset: Of ONNX files that a pass exports.
        code: Digest of edgekit's own code, for what is kept.
        gflops: Of one call of the network as it was exported; 0 before.
    """

    pipeline: Pipeline
    shape: tuple[int, int, int]
    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    schedule: str
    steps: int
    guidance: float
    seed: int = 0
    opset: int = 17
    code: str = ""
    gflops: float = 0.0


def _not_kept(name: str, inputs: dict[str, Any], make: Callable[[Path], None]) -> Path:
    raise RuntimeError(f"{name}: no cache was given to {make} for {sorted(inputs)}")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a pass may ask for; the job gives it, so that no pass imports upwards.

    Attributes:
        out: Empty folder for the files the pass writes.
        samples: Gives the calibration inputs anew at each call, one mapping a sample.
        digest: SHA-256 over the calibration samples.
        seed: Of every draw.
        score: Accuracy of a candidate on labelled training images that calibration did not use, as a
            share from 0 to 1; None where there are no labels.
        why_no_score: Why `score` is None.
        time: Median latency in milliseconds of each candidate, measured in one contest.
        sensor: What recorded the data, where that is a sensor's own values.
        coding: Settings of the codec that was learned with the weights; None where none was.
        grown: Student and teacher for passes on torch; None where none was trained.
        opset: Of ONNX files that a pass exports from torch.
        scene: What a diffusion pipeline is asked for; None for any other model.
        step: Gives the folder of a step, made unless it is kept: a long pass goes on where it stopped.
    """

    out: Path
    samples: Callable[[], Iterable[Arrays]] | None = None
    digest: str = ""
    seed: int = 0
    score: Callable[[Candidate], float] | None = None
    why_no_score: str = ""
    time: Callable[[Sequence[Candidate]], list[float]] | None = None
    sensor: Sensor | None = None
    coding: Mapping[str, Any] | None = None
    grown: Grown | None = None
    opset: int = 17
    scene: Scene | None = None
    step: Callable[[str, dict[str, Any], Callable[[Path], None]], Path] = _not_kept


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a pass did.

    Attributes:
        network: The network afterwards.
        changed: Whether anything changed; the job checks it against the files' digests and the plan.
        facts: What a person should know, as JSON knows it.
        plan: The quantization plan, where the pass made one.
        lossy: Whether the float network gives other outputs now, on purpose: accuracy is held against the one before.
    """

    network: Network
    changed: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    plan: QuantPlan | None = None
    lossy: bool = False


class Pass(Protocol):
    """One compression pass."""

    @property
    def works_on(self) -> str:
        """Return "torch" or "onnx"."""

    @property
    def settings(self) -> type[Any]:
        """Return its frozen dataclass of settings, flat, a default each."""

    @property
    def needs_samples(self) -> bool:
        """Return whether it cannot do without calibration samples."""

    @property
    def recodes(self) -> bool:
        """Return whether the model takes codes afterwards: its inputs then change with its contract."""

    @property
    def summary(self) -> str:
        """Return one line for lists."""

    def run(self, network: Network, settings: Any, context: Context) -> Change:
        """Return the changed network; inputs and outputs keep their contract, inputs unless the pass recodes."""
