"""Write the HTML report of a compile: one file, no network, verdict first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edgekit.core.outcome import Outcome, VariantOutcome
from edgekit.reports.growing import grows_html
from edgekit.reports.link import link_html
from edgekit.reports.page import CSS, table
from edgekit.reports.painting import painting_html
from edgekit.reports.svg import Dot, Series, histogram, scatter
from edgekit.reports.words import (
    accuracy_words,
    headline,
    latency_words,
    machine_words,
    model_words,
    span_words,
    tail_words,
)

_TONES = {"pass": "good", "accepted": "good", "fail": "bad", "rejected": "bad"}


def html_report(outcome: Outcome, pictures: Sequence[str] = (), *, sheet: str = "") -> str:
    """Return the report as one HTML page.

    Args:
        outcome: What was found.
        pictures: JPEG files in base64, frames with drawn answers.
        sheet: PNG file in base64, pictures of a pipeline side by side.
    """
    title = f"{outcome.name} on {outcome.device}"
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}: {escape(outcome.words)}</title><style>{CSS}</style></head><body>",
        f"<h1>{escape(title)}</h1>", f'<p class="soft">{escape(model_words(outcome))}</p>',
        _verdict(outcome), _gates(outcome), _ways_in(outcome), _plots(outcome), _variants(outcome),
        _spans(outcome.variants[0]), _accuracy(outcome), link_html(outcome.link), grows_html(outcome.grows), painting_html(outcome, sheet), _pictures(pictures), _ladder(outcome), _checks(outcome), _receipt(outcome.variants[0]),
        _passes(outcome.passes), _machine(outcome), _notes(outcome), "</body></html>",
    ]  # fmt: skip
    return "\n".join(p for p in parts if p) + "\n"


def _verdict(outcome: Outcome) -> str:
    tone = "bad" if outcome.exit_code else "open" if "not" in outcome.words else "good"
    return (
        f'<div class="verdict {tone}"><b>{escape(outcome.words)}</b><p>{escape(headline(outcome))}</p>'
        f'<p class="soft">{escape(machine_words(outcome))}</p></div>'
    )


def _state(state: str) -> str:
    return f'<span class="state {_TONES.get(state, "open")}">{escape(state)}</span>'


def _gates(outcome: Outcome) -> str:
    if not outcome.verdicts:
        return "<h2>Gates</h2><p>The recipe sets no gates.</p>"
    rows = [
        (escape(v.gate), f"{v.limit:g}", escape(v.found), _state(v.state), escape(v.detail))
        for v in outcome.verdicts
    ]
    return "<h2>Gates</h2>" + table(
        ("gate", "limit", "found", "state", "what was compared"), rows, numbers=(1, 2)
    )


def _ways_in(outcome: Outcome) -> str:
    if not outcome.ways_in:
        return ""
    rows = [
        (escape(w.what), escape(w.latency), escape(w.accuracy or "-"), _state("pass") if w.fits else "no")
        for w in outcome.ways_in
    ]
    return "<h2>Ways in</h2><p>What would be nearer to the missed latency gate.</p>" + table(
        ("what", "latency", "accuracy", "fits"), rows
    )


def _plots(outcome: Outcome) -> str:
    chosen = outcome.variants[0]
    measured = chosen.latency()
    if not measured:
        return ""
    series = [Series(name=f"{chosen.name} (chosen)", values=measured.samples_ms, tone="chosen")]
    reference = next((v for v in outcome.variants if v.name == outcome.reference and v is not chosen), None)
    other = reference.latency() if reference else None
    if other:
        series.insert(0, Series(name=outcome.reference, values=other.samples_ms, tone="other"))
    plots = [histogram(series, label="model span, ms (up to p99)")]
    dots = [
        Dot(
            name=v.name + (f" {v.style}" if v.style else ""),
            x=v.contest_ms,
            y=v.accuracy.value,
            chosen=v is chosen,
        )
        for v in outcome.variants
        if v.accuracy and v.contest_ms is not None
    ]
    if dots and chosen.accuracy:
        plots.append(scatter(dots, x_label="median of the model span, ms", y_label=chosen.accuracy.metric))
    return f'<h2>Latency and accuracy</h2><div class="two">{"".join(f"<div>{p}</div>" for p in plots)}</div>'


def _variants(outcome: Outcome) -> str:
    rows = [
        (
            escape(v.name), escape(v.style or "-"), str(v.threads or "-"), latency_words(v), escape(accuracy_words(v)),
            f"{v.parity:.1e}" if v.parity is not None else "-", f"{v.size_mb:.1f}", escape(v.note or "-"),
        )
        for v in outcome.variants
    ]  # fmt: skip
    heads = ("variant", "style", "threads", "model latency", "accuracy", "output error", "MB", "note")
    how = (
        "<p class=soft>Medians of the rounds in which all variants took turns.</p>"
        if outcome.measured_on
        else ""
    )
    return "<h2>Variants</h2>" + how + table(heads, rows, numbers=(2, 3, 4, 5, 6), chosen=0)


def _spans(chosen: VariantOutcome) -> str:
    if chosen.predicted:
        p = chosen.predicted
        return f"<h2>Prediction</h2><p>From {escape(p.basis)}. Nearest row: {escape(p.nearest)}.</p>"
    if not chosen.latencies:
        return ""
    shares = [t.share for t in chosen.latencies[0].tails]
    heads = ("span", "runs", "label", *(h for s in shares for h in (f"p{s * 100:g}", "99 % bound")))
    rows = [
        (
            span_words(x.span), str(x.runs), escape(x.label),
            *(c for t in x.tails for c in (f"{t.plain_ms:.2f} ms", escape(tail_words(t)))),
        )
        for x in chosen.latencies
    ]  # fmt: skip
    start = (
        f"<p class=soft>Load {chosen.load_ms:.0f} ms, first result {chosen.first_ms:.0f} ms, "
        f"memory {chosen.memory_mb:.0f} MB.</p>"
        if chosen.load_ms is not None and chosen.first_ms is not None and chosen.memory_mb is not None
        else ""
    )
    return (
        f"<h2>Latency of {escape(chosen.name)}</h2>"
        + table(heads, rows, numbers=range(3, len(heads)))
        + start
    )


def _accuracy(outcome: Outcome) -> str:
    chosen = outcome.variants[0].accuracy
    reference = next((v.accuracy for v in outcome.variants if v.name == outcome.reference), None)
    if not chosen or not reference:
        return ""
    rows = []
    for heading in ("scores", "by_size", "by_class"):
        found = getattr(chosen, heading)
        for name in sorted(found, key=lambda n: _rank(n, outcome.model["classes"])):
            value = found[name]
            before = getattr(reference, heading).get(name, 0.0)
            label = {"scores": "", "by_size": "size, px: ", "by_class": "class: "}[heading] + name
            rows.append((escape(label), f"{before:.4f}", f"{value:.4f}", f"{value - before:+.4f}"))
    classifier = outcome.model["task"] == "classify"
    heads = (
        "F1 unless it says else" if classifier else "AP at IoU 0.5 unless it says else",
        "float32",
        escape(outcome.chosen),
        "change",
    )
    place = "on this machine" if chosen.where == "this machine" else f"by {chosen.where}"
    what = f"<p class=soft>{chosen.images} {'samples' if classifier else 'images'}, {escape(place)}{'' if classifier else ', scored by pycocotools'}.</p>"
    return "<h2>Accuracy</h2>" + what + table(heads, rows, numbers=(1, 2, 3))


def _rank(name: str, classes: Sequence[str]) -> tuple[int, str]:
    """Order classes as the model has them, and size bands from small to large."""
    if name in classes:
        return classes.index(name), name
    digits = name.replace("over", "").replace("under", "0-").split("-")[0].strip()
    return (int(digits) if digits.isdigit() else 0), name


def _pictures(pictures: Sequence[str]) -> str:
    if not pictures:
        return ""
    images = "".join(f'<img alt="Frame with detections" src="data:image/jpeg;base64,{p}">' for p in pictures)
    return f'<h2>Frames as the bundle sees them</h2><div class="pictures">{images}</div>'


def _receipt(chosen: VariantOutcome) -> str:
    if not chosen.receipt:
        return ""
    total: dict[tuple[str, str], float] = {}
    for layer in chosen.receipt:
        key = (layer.unit, layer.dtype)
        total[key] = total.get(key, 0.0) + layer.share
    rows = [
        (
            escape(unit),
            escape(dtype),
            f"{100 * share:.1f} %",
            f'<div class="bar" style="width:{100 * share:.1f}%"></div>',
        )
        for (unit, dtype), share in sorted(total.items(), key=lambda p: -p[1])
    ]
    layers = sorted(chosen.receipt, key=lambda r: -r.share)
    detail = [
        (
            escape(r.name), escape(r.op), escape(r.wanted or "-"), escape(r.dtype), escape(r.unit),
            f"{100 * r.share:.1f} %",
        )
        for r in layers
    ]  # fmt: skip
    heads = ("layer", "operator", "asked for", "ran in", "unit", "time")
    return (
        "<h2>What really ran</h2>"
        + table(("unit", "dtype", "time", ""), rows, numbers=(2,))
        + f"<details><summary>All {len(layers)} layers, slowest first</summary>{table(heads, detail, numbers=(5,))}</details>"
    )


def _passes(passes: Mapping[str, Any]) -> str:
    rows = []
    for name, facts in passes.items():
        if name == "slimdiff":
            continue  # it has a section of its own
        for key, value in facts.items():
            rows.append((escape(name), escape(key.replace("_", " ")), escape(_plain_words(value))))
    return "<h2>Passes</h2>" + table(("pass", "fact", "found"), rows) if rows else ""


def _plain_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{str(k).replace('_', ' ')}: {_plain_words(v)}" for k, v in value.items())
    if isinstance(value, list):
        return (
            ", ".join(f"({_plain_words(v)})" if isinstance(v, Mapping) else _plain_words(v) for v in value)
            or "none"
        )
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else {True: "yes", False: "no"}.get(value, str(value))
        if isinstance(value, bool)
        else str(value)
    )


def _ladder(outcome: Outcome) -> str:
    if not outcome.ladder:
        return ""
    rows = [
        (escape(r.name), f"{r.error:.1e}", "the accuracy gate" if r.limit is None else f"{r.limit:g}", escape(r.where), _state("pass" if r.holds else "fail"))
        for r in outcome.ladder
    ]  # fmt: skip
    how = "<p class=soft>Largest difference of outputs on golden frames, each rung against the one above it.</p>"
    return (
        "<h2>Parity ladder</h2>"
        + how
        + table(("rung", "error", "limit", "where", "state"), rows, numbers=(1, 2))
    )


def _checks(outcome: Outcome) -> str:
    rows = [
        (escape(c.name), _state(c.state), escape(c.by), escape(c.detail or "-")) for c in outcome.variants[0].checks
    ]  # fmt: skip
    how = "<p class=soft>What rules, another TensorRT's builder and, where there is an engine, the board say of its files.</p>"
    heads = ("check", "state", "by", "detail")
    return "<h2>Checks</h2>" + how + table(heads, rows) if rows else ""


def _machine(outcome: Outcome) -> str:
    if not outcome.measured_on:
        return ""
    rows = [
        (escape(k.replace("_", " ")), escape(_plain_words(v))) for k, v in sorted(outcome.measured_on.items())
    ]
    return (
        f"<h2>Passport of the machine</h2><p class=soft>Measured {escape(outcome.when)}, mode {escape(outcome.bench)}.</p>"
        + table(("fact", "found"), rows)
    )


def _notes(outcome: Outcome) -> str:
    if not outcome.notes:
        return ""
    return "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(n)}</li>" for n in outcome.notes) + "</ul>"
