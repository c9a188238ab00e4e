"""Which parts of a progressively loaded model run at each step, and when to take the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.errors import VerificationError

SCHEMA, FILE = "edgekit/progressive/v1", "progressive.json"
# A step that loses more than this (a share, 1 point) is jumped over: arXiv 2509.22319 itself shows dips of 0.7.
DIP = 0.01


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One part of the model: a file that an engine opens.

    Attributes:
        name: Such as "t2" (teacher, stage 2), "s3" (student) or "enc1" (teacher's to student's width after stage 1).
        file: In the folder of the variant.
        sha256: Of that file.
        size: Its bytes, with those of `beside`.
        inputs: Names of the values it takes: the model's input, or boundaries such as "t1".
        outputs: Names of the values it gives: a boundary, or the model's outputs.
        beside: Further files that its engine reads, such as an IR's weights: name to SHA-256.
    """

    name: str
    file: str
    sha256: str
    size: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    beside: Mapping[str, str]

    @property
    def files(self) -> dict[str, str]:
        """Every file of it with its SHA-256, the one that the engine opens last."""
        return {**self.beside, self.file: self.sha256}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One state of the model.

    Attributes:
        mask: Who runs each stage, "TSSS": teacher, then student.
        segments: Run in this order; each takes what those before it gave.
        accuracy: Measured when the bundle was made, as a share from 0 to 1; None where it was not.
    """

    mask: str
    segments: tuple[str, ...]
    accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A model that is served while it loads (arXiv 2509.22319).

    Attributes:
        segments: By name, in the order in which they are loaded.
        steps: From all student to all teacher.
        metric: What `accuracy` is.
    """

    segments: Mapping[str, Segment]
    steps: tuple[Step, ...]
    metric: str = ""

    def new(self, step: int, *, held: frozenset[str] = frozenset()) -> tuple[Segment, ...]:
        """Return the segments of a step that are not held yet, in its order."""
        return tuple(self.segments[n] for n in self.steps[step].segments if n not in held)

    def after(self, step: int) -> int | None:
        """Return the step to take next: the first later one that is not a dip; None where there is none."""
        now = self.steps[step].accuracy
        for k in range(step + 1, len(self.steps)):
            then = self.steps[k].accuracy
            if now is None or then is None or then >= now - DIP:
                return k
        return None

    @property
    def first_bytes(self) -> int:
        """Bytes that are needed before the first answer."""
        return sum(s.size for s in self.new(0))


def growth_from(data: Any, *, where: str) -> Growth:
    """Return what a `progressive.json` says.

    Raises:
        VerificationError: It is none, or contradicts itself.
    """
    try:
        if data["schema"] != SCHEMA:
            raise VerificationError(
                f"{where}: schema {data['schema']!r}, this edgekit reads {SCHEMA!r}",
                hint="Use the edgekit version that wrote the bundle.",
            )
        segments = {
            s["name"]: Segment(**{**s, "inputs": tuple(s["inputs"]), "outputs": tuple(s["outputs"])})
            for s in data["segments"]
        }
        steps = tuple(Step(**{**s, "segments": tuple(s["segments"])}) for s in data["steps"])
        growth = Growth(segments=segments, steps=steps, metric=data["metric"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerificationError(f"{where}: is damaged ({error!r})", hint="Fetch the bundle again.") from error
    _check(growth, where)
    return growth


def _check(growth: Growth, where: str) -> None:
    """Refuse steps whose segments are missing or take what nobody gave."""
    if not growth.steps:
        raise VerificationError(f"{where}: has no steps", hint="Fetch the bundle again.")
    for step in growth.steps:
        unknown = [n for n in step.segments if n not in growth.segments]
        if unknown or not step.segments:
            raise VerificationError(
                f"{where}: step {step.mask}: no segment {unknown}", hint="Fetch the bundle again."
            )
        given = set(growth.segments[step.segments[0]].inputs)
        for name in step.segments:
            segment = growth.segments[name]
            if not set(segment.inputs) <= given:
                raise VerificationError(
                    f"{where}: step {step.mask}: {name} takes {sorted(set(segment.inputs) - given)}, which nobody gives",
                    hint="Fetch the bundle again.",
                )
            given |= set(segment.outputs)


def growth_data(growth: Growth) -> dict[str, Any]:
    """Return a growth as `progressive.json` holds it."""
    return {
        "schema": SCHEMA,
        "metric": growth.metric,
        "steps": [
            {"mask": s.mask, "segments": list(s.segments), "accuracy": s.accuracy} for s in growth.steps
        ],
        "segments": [
            {
                "name": s.name, "file": s.file, "sha256": s.sha256, "size": s.size,
                "inputs": list(s.inputs), "outputs": list(s.outputs), "beside": dict(s.beside),
            }
            for s in growth.segments.values()
        ],
    }  # fmt: skip


def chain(mask: str, converters: frozenset[str], *, taps: tuple[int, ...]) -> tuple[str, ...]:
    """Return the segments that a mask runs, in order.

    Args:
        mask: Such as "TSSS".
        converters: The converters there are; equal widths need none.
        taps: Stages, from 0, whose boundaries the head takes.
    """
    found: list[str] = []
    last = mask[-1]
    for k, owner in enumerate(mask):
        found.append(f"{owner.lower()}{k + 1}")
        wanted = {mask[k + 1]} if k + 1 < len(mask) else set()
        wanted |= {last} if k in taps else set()
        if wanted - {owner}:
            name = f"{'enc' if owner == 'T' else 'dec'}{k + 1}"
            found += [name] if name in converters else []
    return tuple(found)
