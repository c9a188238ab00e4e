"""Measure variants against each other, and compare their outputs; all kept under the machine's passport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core import versions
from edgekit.core.digest import digest_file
from edgekit.core.errors import ContractError
from edgekit.core.records import Artifact, LayerRun
from edgekit.core.watch import watcher
from edgekit.forms.stored import restore, store
from edgekit.jobs.ask import Ask
from edgekit.jobs.variants import Lowered
from edgekit.measure.contest import contest
from edgekit.measure.outputs import outputs_apart
from edgekit.measure.percentiles import median

_BLOCK, _BLOCKS = 16, 50
# What a passport says that may differ between two runs of one machine without changing a latency.
_LOOSE = ("kernel",)


class DeadError(ContractError):
    """A detector's scores are gone: a variant that must not be chosen."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Measured latencies of one variant, by span, with the facts of its start.

    Attributes:
        spans: Single runs in order, milliseconds.
        facts: load_ms, first_ms, memory_mb.
        steady: Whether the warm-up ended in steady runs.
        receipt: Layers as they ran, empty where not asked for.
    """

    spans: dict[str, tuple[float, ...]]
    facts: dict[str, float]
    steady: bool
    receipt: tuple[LayerRun, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trials:
    """One contest: its trials by name, and when it was held."""

    by_name: dict[str, Trial]
    when: str


def machine_key(ask: Ask) -> dict[str, Any]:
    """Return what of the passport a measurement depends on."""
    return {k: v for k, v in ask.passport.items() if k not in _LOOSE}


def held(
    ask: Ask,
    entrants: Mapping[str, Lowered],
    files: Sequence[Path],
    *,
    round_name: str,
    runs: int,
    seconds: float = 0.0,
    limit_s: float = 600.0,
    spans: Sequence[str] = ("model",),
    receipts: bool = False,
) -> Trials:
    """Return the contest of these variants, held now or kept from before on this machine.

    Args:
        ask: The compile.
        entrants: Variants by name.
        files: Frames inputs are drawn from; none means random inputs.
        round_name: Tells rounds with the same entrants apart.
        runs: Runs of the first span at least.
        seconds: Measured time of the first span at least.
        limit_s: A span's contest ends after this long.
        spans: What to measure.
        receipts: Profile each variant afterwards.
    """
    inputs = {
        "machine": machine_key(ask), "entrants": {n: e.digest for n, e in entrants.items()},
        "round": round_name, "runs": runs, "seconds": seconds, "limit": limit_s, "spans": list(spans),
        "files": [digest_file(f) for f in files], "receipts": receipts, "code": versions.code(),
    }  # fmt: skip

    def make(folder: Path) -> None:
        watcher().phase(f"measure {round_name}")
        artifacts = {n: e.artifact for n, e in entrants.items()}
        hold = ask.board.contest if ask.board else contest
        found = hold(
            artifacts, files, runs=runs, seconds=seconds, limit_s=limit_s, spans=spans, receipts=receipts
        )
        trials = {
            name: Trial(
                spans={s: tuple(round(v, 3) for v in ms) for s, ms in sample.spans.items()},
                facts=sample.facts, steady=sample.steady,
                receipt=as_asked(sample.receipt, entrants[name].artifact),
            )
            for name, sample in found.items()
        }  # fmt: skip
        store(folder / "trials.json", Trials(by_name=trials, when=_now()))

    return restore(ask.cache.step("trial", inputs, make) / "trials.json", Trials)


def _now() -> str:
    import datetime as dt

    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def as_asked(rows: Sequence[Mapping[str, Any]], artifact: Artifact) -> tuple[LayerRun, ...]:
    """Return the layers as they ran, each with the dtype the plan asked for."""
    return tuple(LayerRun(**{**r, "covers": tuple(r["covers"]), "wanted": _asked(r, artifact)}) for r in rows)


def _asked(row: Mapping[str, Any], artifact: Artifact) -> str:
    names = [_layer(c) for c in row["covers"]]
    return next((artifact.wanted[n] for n in names if n in artifact.wanted), "")


def _layer(name: str) -> str:
    """Return the layer a node of an engine stands for: engines add their own suffixes."""
    for suffix in ("_quant", "/WithoutBiases", "/fq_weights_1"):
        name = name.removesuffix(suffix)
    return name


def share_as_planned(receipt: Sequence[LayerRun]) -> float | None:
    """Return, of the time in layers with a wanted dtype, the part that ran in it; None without any."""
    asked = [r for r in receipt if r.wanted]
    total = sum(r.share for r in asked)
    return sum(r.share for r in asked if r.dtype == r.wanted) / total if total else None


def ratio(reference: Sequence[float], chosen: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of medians of alternating runs, with the 5th and 95th percentile over blocks.

    Both samples were taken side by side, so the k-th part of one stands beside the k-th of the other.
    """
    count = max(min(len(reference), len(chosen)) // _BLOCK, 1)
    pairs = [np.array_split(np.asarray(s), min(count, _BLOCKS)) for s in (reference, chosen)]
    blocks = [float(np.median(a) / np.median(b)) for a, b in zip(*pairs, strict=True)]
    low, high = np.quantile(blocks, [0.05, 0.95])
    return median(reference) / median(chosen), float(low), float(high)


def _hint(one: Lowered) -> str:
    if one.wanted.precision == "int8":
        return "Keep the decoder in float: export.decode: host, or leave its layers out of quantize-int8."
    return "The engine computes this precision wrongly here: report the model to edgekit, take another precision."


def outputs_error(ask: Ask, reference: Lowered, other: Lowered, files: Sequence[Path]) -> float:
    """Return the largest output error of a variant against the reference over a few inputs.

    Relative to the largest value of each output; kept in the cache.

    Raises:
        DeadError: A detector's scores are gone, or fell by half.
    """
    inputs = {
        "pair": [reference.digest, other.digest], "files": [digest_file(f) for f in files[:8]],
        "isa": ask.passport.get("isa"), "engines": ask.passport.get("engines"), "code": versions.code(),
    }  # fmt: skip

    def make(folder: Path) -> None:
        watcher().phase("parity")
        compare = ask.board.pair if ask.board else outputs_apart
        worst, fell = compare(reference.artifact, other.artifact, files[:8])
        if fell:
            raise DeadError(
                f"{other.wanted.plain}: where {reference.wanted.plain} finds something its scores are zero, or less than half",
                hint=_hint(other),
            )
        store(folder / "error.json", [worst])

    return restore(ask.cache.step("parity", inputs, make) / "error.json", list[float])[0]
