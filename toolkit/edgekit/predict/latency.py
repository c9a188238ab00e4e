"""Predict a latency that nobody measured yet, with its band and the nearest published row."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.core.errors import RecipeError
from edgekit.core.plugins import suggestion
from edgekit.core.records import Predicted
from edgekit.predict.process import Fitted, Point
from edgekit.predict.rows import Row, Size, family_of, held_out, place_of, rows, size_of, sizes

# Share of the rows' own leave-one-out errors that a band covers. 0.85 keeps it above 8 in 10.
_COVER = 0.85


@dataclass(frozen=True, kw_only=True)
class Question:
    """What shall be predicted.

    Attributes:
        device: A name that the published rows or peaks use.
        backend: A published word such as "tensorrt" or "openvino-cpu".
        precision: fp32, fp16, int8.
        size: What one inference takes.
        model: Catalogue name, empty for a user's own.
        software: Edition, empty for the newest published for that device and engine.
        power: Power mode as a row words it.
        peak: Dense fp16 GFLOPS of the GPU in the power mode asked for, 0 for the device's own.
    """

    device: str
    backend: str
    precision: str
    size: Size
    model: str = ""
    software: str = ""
    power: str = ""
    peak: float = 0.0


def known_models() -> tuple[str, ...]:
    """Return the models that published rows speak of and whose size is known."""
    return tuple(sorted(sizes()))


def size_of_model(name: str, imgsz: int) -> Size:
    """Return the size of a catalogue model at an image side.

    Raises:
        RecipeError: No such model, or its GFLOPs are not known.
    """
    if name in sizes():
        return sizes()[name].at(imgsz)
    if name in {r.model for r in rows()}:
        raise RecipeError(
            f"model {name!r}: its GFLOPs and activations are not known, only latencies are published",
            hint="Give an ONNX file of it; edgekit counts both.",
        )
    raise RecipeError(f"model: no {name!r}", hint=suggestion(name, known_models()))


def refuse_unknown(*, backend: str, precision: str, software: str) -> None:
    """Refuse words that neither the published rows nor edgekit's own engines use.

    Raises:
        RecipeError: There is none; the nearest word is suggested.
    """
    words = {
        "backend": (backend, {r.backend for r in rows()} | {"onnxruntime", "openvino", "tensorrt"}),
        "precision": (precision, {r.precision for r in rows()} | {"fp32", "fp16", "bf16", "int8"}),
        "software": (software, {r.software for r in rows()} | {""}),
    }
    for key, (word, known) in words.items():
        if word not in known:
            raise RecipeError(
                f"--{key}: no {word!r} in the published rows", hint=suggestion(word, known - {""})
            )


@functools.cache
def _fitted() -> tuple[Fitted, float]:
    """Return the process over the rows that are not held out, and the band's width in deviations."""
    kept = [r for r in rows() if not held_out(r) and size_of(r)]
    fitted = Fitted([point(r) for r in kept], [r.latency_ms for r in kept])
    error, deviation = fitted.left_out()
    return fitted, float(np.quantile(np.abs(error / deviation), _COVER))


@functools.cache
def _peaks() -> dict[str, dict[str, float]]:
    data: dict[str, dict[str, float]] = json.loads((Path(__file__).parent / "peaks.json").read_text())
    return {k: v for k, v in data.items() if isinstance(v, dict)}


def question(row: Row) -> Question:
    """Return the question a row answers; its model's size must be known."""
    size = size_of(row)
    assert size
    return Question(
        device=row.device, backend=row.backend, precision=row.precision, size=size, model=row.model,
        software=row.software or "not stated", power=row.power_mode,
    )  # fmt: skip


def point(row: Row) -> Point:
    """Return a row as the process sees it."""
    return _point(question(row))


def _point(asked: Question) -> Point:
    device, engine, unit = place_of(asked.device, asked.backend)
    keys = {
        "device": device, "engine": engine, "unit": unit, "precision": asked.precision,
        "software": asked.software or _newest(device, engine, unit), "power": asked.power,
        "family": family_of(asked.model) if asked.model else "", "model": asked.model,
    }  # fmt: skip
    # A DLA and a CPU have clocks of their own.
    own = asked.peak if unit == "gpu" else 0.0
    peak = own or _peaks().get(device, {}).get(unit, 0.0)
    return Point(keys=keys, gflops=asked.size.gflops, activations_m=asked.size.activations_m, peak=peak)


def _newest(device: str, engine: str, unit: str) -> str:
    """Return the last edition listed for a device and engine, else for the engine, else nothing."""
    for wanted in ((device, engine, unit), (None, engine, unit)):
        found = [
            r.software
            for r in rows()
            if r.software and not held_out(r) and wanted[0] in {None, place_of(r.device, r.backend)[0]}
            and place_of(r.device, r.backend)[1:] == wanted[1:]
        ]  # fmt: skip
        if found:
            return max(Counter(found).items(), key=lambda pair: (_version(pair[0]), pair[1]))[0]
    return ""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for part in text.replace(",", " ").split() for n in part.split(".") if n.isdigit())


def predict(asked: Question) -> Predicted:
    """Return the prediction for one question."""
    fitted, width = _fitted()
    mean, deviation = fitted.predict([_point(asked)])
    middle, spread = float(mean[0]), width * float(deviation[0])
    near = nearest(asked)
    return Predicted(
        ms=math.exp(middle),
        low_ms=math.exp(middle - spread),
        high_ms=math.exp(middle + spread),
        basis=_basis(asked, len(fitted.points)),
        nearest=near.words() if near else "",
    )


def _basis(asked: Question, fitted: int) -> str:
    device, engine, unit = place_of(asked.device, asked.backend)
    kept = (r for r in rows() if not held_out(r) and size_of(r))
    same = sum(place_of(r.device, r.backend) == (device, engine, unit) for r in kept)
    return f"{fitted} published rows, {same} of them for {engine} on the {unit} of {device}"


def nearest(asked: Question) -> Row | None:
    """Return the published row that shares most with the question, the closest in size among equals."""
    wanted = place_of(asked.device, asked.backend)

    def far(row: Row) -> tuple[float, ...]:
        found, size = place_of(row.device, row.backend), size_of(row)
        assert size
        return (
            found[2] != wanted[2], found[0] != wanted[0], found[1] != wanted[1],
            row.precision != asked.precision, int(abs(math.log(size.gflops / asked.size.gflops)) / 0.5),
            -float(sum(_version(row.software)[:3])),
        )  # fmt: skip

    return min((r for r in rows() if size_of(r)), key=far, default=None)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How good predictions of held-out rows are.

    Attributes:
        rows: How many were judged.
        median_error: Median of |predicted / published - 1|.
        covered: Share inside the band.
    """

    rows: int
    median_error: float
    covered: float


def judge() -> tuple[Judged, Judged]:
    """Return errors on held-out rows: with at least 4 fitted rows of device and backend, and the rest."""
    count = Counter((r.device, r.backend) for r in rows() if not held_out(r) and size_of(r))
    kept = [r for r in rows() if held_out(r) and size_of(r)]
    rich = [r for r in kept if count[(r.device, r.backend)] >= 4]
    poor = [r for r in kept if count[(r.device, r.backend)] < 4]
    return _judged(rich), _judged(poor)


def _judged(some: Sequence[Row]) -> Judged:
    found = [predict(question(r)) for r in some]
    errors = [abs(p.ms / r.latency_ms - 1) for p, r in zip(found, some, strict=True)]
    covered = [p.low_ms <= r.latency_ms <= p.high_ms for p, r in zip(found, some, strict=True)]
    return Judged(rows=len(some), median_error=float(np.median(errors)), covered=float(np.mean(covered)))
