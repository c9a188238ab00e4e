"""Say what lies between a sensor and the model: the codec's bytes, its times, its curve."""

from __future__ import annotations

import math
from html import escape

from edgekit.core.outcome import Link
from edgekit.reports.page import table
from edgekit.reports.svg import Line, lines

_TONES = ("line", "second", "third", "fourth")


def link_words(link: Link) -> str:
    """Return the link in one line: bytes, what they were, and what coding them takes."""
    share = link.sensor_bytes_per_frame / max(link.bytes_per_frame, 1)
    words = (
        f"{link.curve} curve, {link.bits} of {link.sensor_bits} bits: {link.bytes_per_frame} bytes a frame instead of "
        f"{link.sensor_bytes_per_frame} ({share:.2g} times as few)"
    )
    if link.frames_per_second:
        words += f", {link.bytes_per_frame * link.frames_per_second:.4g} bytes a second"
    return words + "".join(f"; {w}" for w in (_encoder_words(link), _front_words(link)) if w)


def _encoder_words(link: Link) -> str:
    if link.numpy_ms is None:
        return "encoder not measured: the recipe names no data"
    by_c = (
        f"{link.c_ms:.3g} ms by the C header ({link.c_mb_s:.0f} MB/s, {link.compiler})"
        if link.c_ms is not None and link.c_mb_s is not None
        else "the C header not measured, no compiler there"
    )
    return f"encoding a frame on {link.where}: {by_c}, {link.numpy_ms:.3g} ms by numpy (medians of up to {link.runs} runs)"


def _front_words(link: Link) -> str:
    return (
        f"decoding takes {link.front_share:.1%} of the model's time" if link.front_share is not None else ""
    )


def link_html(link: Link | None) -> str:
    """Return the report's section, nothing where no codec stands before the model."""
    if link is None:
        return ""
    parts = ["<h2>Link from the sensor</h2>", f"<p>{escape(link_words(link))}.</p>"]
    plots = [p for p in (_curve(link), _history(link)) if p]
    if plots:
        parts.append(f'<div class="two">{"".join(f"<div>{p}</div>" for p in plots)}</div>')
    if link.gamma:
        heads = ["channel", "γ", "gain", *(["middle"] if link.mu else [])]
        columns = [link.gamma, link.gain, *([link.mu] if link.mu else [])]
        rows = [
            (escape(name), *(f"{column[k]:.3f}" for column in columns))
            for k, name in enumerate(link.channels)
        ]
        parts.append(table(heads, rows, numbers=range(1, len(heads))))
    return "\n".join(parts)


def _curve(link: Link) -> str:
    """Return the codes over the sensor's values, one line for each curve that differs."""
    if not link.thresholds:
        return ""
    signed = link.values[0] < 0
    low, high = _shown(link) if signed else link.values
    found: dict[tuple[int, ...], list[str]] = {}
    for name, row in zip(link.channels, link.thresholds, strict=True):
        found.setdefault(tuple(row), []).append(name)
    drawn = []
    for tone, (row, names) in zip(_TONES, found.items(), strict=False):
        points = [(_place(low, signed=signed), 0.0)]
        for code, value in enumerate(row, 1):
            if value <= high:
                x = _place(value, signed=signed)
                points += [(x, points[-1][1]), (x, float(code))]
        points.append((_place(high, signed=signed), points[-1][1]))
        drawn.append(Line(name=" ".join(names), points=points, tone=tone))
    label = "sensor value" if signed else "sensor value, log2 (10 is 1,024)"
    return lines(drawn, x_label=label, y_label="code", title="Curve of the sensor")


def _shown(link: Link) -> tuple[int, int]:
    """Return the part of a signed sensor's range in which its codes change, with some room."""
    ends = [t for row in link.thresholds for t in row if t <= link.values[1]]
    room = max((max(ends) - min(ends)) // 5, 1)
    return max(min(ends) - room, link.values[0]), min(max(ends) + room, link.values[1])


def _place(value: float, *, signed: bool) -> float:
    return float(value) if signed else math.log2(max(value, 1))


def _history(link: Link) -> str:
    """Return how γ moved in training, one line a channel that has one of its own."""
    rows = [h["gamma"] for h in link.history if h.get("gamma")]
    if len(rows) < 2:
        return ""
    found: dict[tuple[float, ...], list[str]] = {}
    for name, column in zip(link.channels, zip(*rows, strict=True), strict=True):
        found.setdefault(column, []).append(name)
    drawn = [
        Line(name=" ".join(names), points=[(e + 1.0, v) for e, v in enumerate(column)], tone=tone)
        for tone, (column, names) in zip(_TONES, found.items(), strict=False)
    ]
    return lines(drawn, x_label="epoch", y_label="γ", title="The exponent in training")
