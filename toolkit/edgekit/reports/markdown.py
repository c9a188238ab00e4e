"""Write the Markdown summary of a compile."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.outcome import Outcome, VariantOutcome
from edgekit.reports.growing import grows_words
from edgekit.reports.link import link_words
from edgekit.reports.painting import paints_words, slim_words
from edgekit.reports.words import (
    accuracy_words,
    headline,
    ladder_words,
    latency_words,
    machine_words,
    model_words,
    span_words,
    spread_words,
)


def markdown_report(outcome: Outcome) -> str:
    """Return the summary: verdict first, then variants, spans, machine and notes."""
    chosen = outcome.variants[0]
    parts = [f"# {outcome.name} on {outcome.device}: {outcome.words}", "", headline(outcome), ""]
    rows = [(v.gate, f"{v.limit:g}", v.found, v.state, v.detail) for v in outcome.verdicts]
    parts += (
        _table(("gate", "limit", "found", "state", "detail"), rows) if rows else ["The recipe sets no gates."]
    )
    if outcome.ways_in:
        parts += ["", "## Ways in", ""]
        parts += _table(
            ("what", "latency", "accuracy", "fits"),
            [(w.what, w.latency, w.accuracy or "-", "yes" if w.fits else "no") for w in outcome.ways_in],
        )
    parts += ["", "## Variants", ""]
    parts += _table(
        ("variant", "style", "model latency", "accuracy", "size", "note"),
        [
            (
                v.name,
                v.style or "-",
                latency_words(v),
                accuracy_words(v),
                f"{v.size_mb:.1f} MB",
                v.note or "-",
            )
            for v in outcome.variants
        ],
    )
    if chosen.latencies:
        parts += ["", "## Latency of the chosen variant", ""]
        parts += [
            f"- {span_words(x.span)}: {spread_words(x)}, {x.runs} runs, {x.label}" for x in chosen.latencies
        ]
    if chosen.predicted:
        parts += ["", f"Predicted from {chosen.predicted.basis}. Nearest row: {chosen.predicted.nearest}."]
    if outcome.ladder:
        parts += ["", f"Parity on golden frames: {ladder_words(outcome.ladder)}."]
    parts += _link(outcome) + _checks(chosen)
    parts += ["", f"Model: {model_words(outcome)}.", "", f"Machine: {machine_words(outcome)}.", ""]
    parts += [f"- {note}" for note in outcome.notes]
    return "\n".join(parts).rstrip() + "\n"


def _link(outcome: Outcome) -> list[str]:
    found = [f"Link from the sensor: {link_words(outcome.link)}."] if outcome.link else []
    found += [f"Pictures: {paints_words(outcome.paints)}."] if outcome.paints else []
    found += [f"Slimmed: {slim_words(outcome.passes['slimdiff'])}."] if "slimdiff" in outcome.passes else []
    found += [f"Grows while it serves: {grows_words(outcome.grows)}."] if outcome.grows else []
    return [line for words in found for line in ("", words)]


def _checks(variant: VariantOutcome) -> list[str]:
    lines = [
        f"- {c.name}: {c.state}, by {c.by}" + (f" ({c.detail})" if c.detail else "") for c in variant.checks
    ]
    return ["", *lines] if lines else []


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return lines + [f"| {' | '.join(c.replace('|', '/') for c in row)} |" for row in rows]
