"""Draw the report's plots as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 560, 240, 56, 40, 22
_RIGHT = 44
_FEW = 8


@dataclass(frozen=True, kw_only=True)
class Series:
    """One named sample of latencies; `tone` is a CSS class."""

    name: str
    values: Sequence[float]
    tone: str


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One variant in the plot of accuracy against latency."""

    name: str
    x: float
    y: float
    chosen: bool


def histogram(series: Sequence[Series], *, label: str) -> str:
    """Return overlaid histograms over one axis from the fastest run to the 99th percentile."""
    values = sorted(v for s in series for v in s.values)
    low, high = values[0], max(sorted(s.values)[math.ceil(0.99 * len(s.values)) - 1] for s in series)
    high = max(high, low * 1.02)
    bins = 72
    heights = [_counts(s.values, low, high, bins) for s in series]
    tallest = max(max(h) for h in heights)
    step = (_WIDTH - _LEFT - 10) / bins
    parts = _axes(low, high, label)
    for one, counts in zip(series, heights, strict=True):
        for k, count in enumerate(counts):
            if count:
                tall = (_HEIGHT - _BOTTOM - _TOP) * count / tallest
                x, y = _LEFT + k * step, _HEIGHT - _BOTTOM - tall
                parts.append(
                    f'<rect class="{one.tone}" x="{x:.1f}" y="{y:.1f}" width="{step:.1f}" height="{tall:.1f}"/>'
                )
    for k, one in enumerate(series):
        x = _LEFT + 8 + 240 * k
        parts.append(f'<rect class="{one.tone}" x="{x}" y="4" width="10" height="10"/>')
        parts.append(f'<text x="{x + 15}" y="13">{escape(one.name)}</text>')
    return _svg(parts, "Latency distribution")


def _counts(values: Sequence[float], low: float, high: float, bins: int) -> list[float]:
    counts = [0] * bins
    for value in values:
        if value <= high:
            counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    return [c / len(values) for c in counts]


def scatter(dots: Sequence[Dot], *, x_label: str, y_label: str) -> str:
    """Return accuracy over latency, the chosen variant marked."""
    xs, ys = [d.x for d in dots], [d.y for d in dots]
    low, high = 0.0, max(xs) * 1.25
    floor, top = min(ys), max(ys)
    margin = max((top - floor) * 0.25, 0.002)
    floor, top = floor - margin, top + margin
    parts = _axes(low, high, x_label)
    for k in range(5):
        value = floor + (top - floor) * k / 4
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * k / 4
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - 10}" y2="{y:.1f}"/>')
        parts.append(f'<text text-anchor="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{value:.3f}</text>')
    parts.append(f'<text x="{_LEFT}" y="12">{escape(y_label)}</text>')
    for k, dot in enumerate(sorted(dots, key=lambda d: d.x)):
        x = _LEFT + (_WIDTH - _LEFT - 10) * (dot.x - low) / (high - low)
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (dot.y - floor) / (top - floor)
        tone = "chosen" if dot.chosen else "other"
        parts.append(f'<circle class="{tone}" cx="{x:.1f}" cy="{y:.1f}" r="{6 if dot.chosen else 4.5}"/>')
        below = 16 if k % 2 else -9
        anchor = "end" if x > _WIDTH * 0.7 else "start"
        parts.append(
            f'<text text-anchor="{anchor}" x="{x:.1f}" y="{y + below:.1f}">{escape(dot.name)}</text>'
        )
    return _svg(parts, "Accuracy against latency")


Points = Sequence[tuple[float, float]]


def timeline(latency: Points, heat: Points, *, label: str) -> str:
    """Return latency over time as a line (left axis, ms), temperature as a dashed one (right axis, degrees Celsius).

    Args:
        latency: Seconds since the start and milliseconds.
        heat: Seconds since the start and degrees Celsius; may be empty.
        label: What the picture shows, for those who hear it.
    """
    end = max([t for t, _ in (*latency, *heat)] + [1.0])
    unit, size = ("min", 60.0) if end > 180 else ("s", 1.0)
    values = sorted(v for _, v in latency)
    high = max(values[math.ceil(0.995 * len(values)) - 1] * 1.1, values[len(values) // 2] * 1.25)
    parts = _axes(0.0, end / size, f"time, {unit}", right=_RIGHT)
    parts += _levels(0.0, high, 4, side="left")
    parts.append(f'<text x="{_LEFT}" y="12">ms</text>')
    parts.append(_line(latency, end, 0.0, high, "line"))
    if heat:
        low, top = min(v for _, v in heat) - 5, max(v for _, v in heat) + 5
        parts += _levels(low, top, 4, side="right")
        parts.append(f'<text class="heat" text-anchor="end" x="{_WIDTH - 8}" y="12">°C</text>')
        parts.append(_line(heat, end, low, top, "heat"))
    return _svg(parts, label)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One named line of a plot; `tone` is a CSS class."""

    name: str
    points: Points
    tone: str


def lines(drawn: Sequence[Line], *, x_label: str, y_label: str, title: str) -> str:
    """Return lines over common axes, their names above."""
    xs, ys = ([p[k] for one in drawn for p in one.points] for k in (0, 1))
    low, high = min(xs), max(xs)
    floor, top = min(ys), max(ys)
    margin = 0.05 * (top - floor) or 0.5
    floor, top = floor - margin, top + margin
    parts = _axes(low, max(high, low + 1e-9), x_label)
    tall = _HEIGHT - _BOTTOM - _TOP
    for value in ticks(floor, top):
        y = _HEIGHT - _BOTTOM - tall * (value - floor) / (top - floor)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - 10}" y2="{y:.1f}"/>')
        parts.append(f'<text text-anchor="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{value:g}</text>')
    parts.append(f'<text text-anchor="end" x="{_LEFT - 6}" y="13">{escape(y_label)}</text>')
    at = _LEFT + 8
    for one in drawn:
        spots = [
            (
                _LEFT + (_WIDTH - _LEFT - 10) * (x - low) / max(high - low, 1e-9),
                _HEIGHT - _BOTTOM - tall * (y - floor) / (top - floor),
            )
            for x, y in one.points
        ]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline class="{one.tone}" points="{joined}"/>')
        # A few measured points are shown as such; one alone would be no line at all.
        if len(spots) <= _FEW:
            parts += [f'<circle class="{one.tone}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots]
        parts.append(f'<line class="{one.tone}" x1="{at}" y1="9" x2="{at + 16}" y2="9"/>')
        parts.append(f'<text x="{at + 21}" y="13">{escape(one.name)}</text>')
        at += 38 + 6 * len(one.name)
    return _svg(parts, title)


def _line(points: Points, end: float, low: float, high: float, tone: str) -> str:
    spots = []
    for t, value in points:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * t / end
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        spots.append(f"{x:.1f},{_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share:.1f}")
    return f'<polyline class="{tone}" points="{" ".join(spots)}"/>'


def _levels(low: float, high: float, count: int, *, side: str) -> list[str]:
    parts = []
    for k in range(count + 1):
        value = low + (high - low) * k / count
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * k / count
        digits = 0 if side == "right" or high >= 20 else 1 if high >= 2 else 2
        if side == "left":
            parts.append(
                f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
            )
            parts.append(f'<text text-anchor="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{value:.{digits}f}</text>')
        else:
            parts.append(
                f'<text class="heat" x="{_WIDTH - _RIGHT + 6}" y="{y + 4:.1f}">{value:.{digits}f}</text>'
            )
    return parts


def _axes(low: float, high: float, label: str, *, right: int = 10) -> list[str]:
    base = _HEIGHT - _BOTTOM
    parts = [f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{_WIDTH - right}" y2="{base}"/>']
    for tick in ticks(low, high):
        x = _LEFT + (_WIDTH - _LEFT - right) * (tick - low) / (high - low)
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{base}" x2="{x:.1f}" y2="{base + 4}"/>')
        parts.append(f'<text text-anchor="middle" x="{x:.1f}" y="{base + 17}">{tick:g}</text>')
    parts.append(
        f'<text text-anchor="middle" x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 6}">{escape(label)}</text>'
    )
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Return round values between two numbers, about six of them."""
    rough = (high - low) / 6
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= rough)
    first = math.ceil(low / step)
    return [round(step * k, 10) for k in range(first, math.floor(high / step) + 1)]


def _svg(parts: Sequence[str], title: str) -> str:
    inner = "".join(parts)
    return f'<svg role="img" aria-label="{title}" viewBox="0 0 {_WIDTH} {_HEIGHT}">{inner}</svg>'
