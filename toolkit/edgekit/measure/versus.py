"""Run two artifacts against each other on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.core.comparison import Comparison
from edgekit.core.records import Artifact
from edgekit.core.result import Subject
from edgekit.core.watch import watcher
from edgekit.machine.probe import passport
from edgekit.measure.blocks import Blocks, interleaved, ratio_of, spread
from edgekit.measure.contest import Contender

WORKER = ("-m", "edgekit.measure.worker")


def versus(
    artifacts: tuple[Artifact, Artifact], subjects: tuple[Subject, Subject], files: Sequence[Path], *, span: str,
    when: str, device: str, seed: int = 0, workers: tuple[Sequence[str], Sequence[str]] = (WORKER, WORKER),
) -> Comparison:  # fmt: skip
    """Return the comparison of B with A, both warmed up, in turns, the other one stopped.

    Args:
        artifacts: A and B.
        subjects: What they are.
        files: Frames inputs are drawn from, the same draws for both.
        span: What to time.
        when: UTC in ISO 8601.
        device: Name of this machine.
        seed: Of inputs and bootstrap.
        workers: Programs that run A and B, for experiments.

    Raises:
        EdgekitError: An engine cannot run one of them.
    """
    watcher().phase("loading the engines")
    with (
        Contender(artifacts[0], files, seed=seed, command=workers[0]) as a,
        Contender(artifacts[1], files, seed=seed, command=workers[1]) as b,
    ):
        watcher().phase("warming up")
        steady = [bool(one.warm_up()["steady"]) for one in (a, b)]
        watcher().phase(f"comparing {span}")
        blocks = interleaved(a, b, span)
    if not all(steady):
        blocks.notes.append("a warm-up did not become steady")
    machine = passport()
    return compared(
        blocks, subjects, span=span, when=when, device=device, how="interleaved", seed=seed,
        passport=machine,
    )  # fmt: skip


def compared(
    blocks: Blocks, subjects: tuple[Subject, Subject], *, span: str, when: str, device: str, how: str,
    seed: int = 0, passport: dict[str, object], differences: tuple[str, ...] = (),
) -> Comparison:  # fmt: skip
    """Return the judged comparison of measured blocks."""
    sides = [[[row[k] for row in side] for side in (blocks.a, blocks.b)] for k in (0, 1)]
    ratios = tuple(
        ratio_of(what, a, b, seed=seed) for what, (a, b) in zip(("median", "p90"), sides, strict=True)
    )
    return Comparison(
        a=subjects[0], b=subjects[1], when=when, device=device, span=span, how=how, ratios=ratios,
        blocks_a=tuple(blocks.a), blocks_b=tuple(blocks.b), runs=blocks.runs, spread=spread(blocks.a, blocks.b),
        differences=differences, passport=passport, emulated=str(passport.get("emulated", "")),
        notes=tuple(dict.fromkeys(blocks.notes)),
    )  # fmt: skip
