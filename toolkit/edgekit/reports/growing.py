"""Say how a model grows while it serves: what every step is worth, when it comes, and what requests feel of it."""

from __future__ import annotations

from html import escape

from edgekit.core.outcome import Grows
from edgekit.reports.page import table
from edgekit.reports.svg import Line, lines


def grows_words(grows: Grows) -> str:
    """Return in one line what is there first, what it is worth, and what comes."""
    share = grows.first_bytes / max(grows.whole_bytes, 1)
    words = (
        f"answers after {_mb(grows.first_bytes)} ({share:.0%} of the whole model's {_mb(grows.whole_bytes)})"
    )
    if grows.first_ms is not None and grows.whole_ms is not None:
        disk = "from a cold disk" if grows.cold else "files in the page cache"
        words += (
            f", {grows.first_ms:.3g} ms instead of {grows.whole_ms:.3g} ms ({disk}, medians of {grows.runs})"
        )
    if grows.accuracy and grows.accuracy[0] is not None and grows.accuracy[-1] is not None:
        path = " ".join(f"{a:.4f}" for a in grows.accuracy if a is not None)
        words += f"; {grows.metric} {path}"
    if grows.stall_ms is not None:
        words += f"; requests took up to {grows.stall_ms[2]:.3g} ms longer while it grew"
    return words


def grows_html(grows: Grows | None) -> str:
    """Return the report's section, nothing where the model is loaded whole."""
    if grows is None:
        return ""
    parts = ["<h2>Growing while it serves</h2>", f"<p>{escape(grows_words(grows))}.</p>"]
    plots = [p for p in (_accuracy(grows), _latency(grows), _memory(grows)) if p]
    if plots:
        parts.append(f'<div class="two">{"".join(f"<div>{p}</div>" for p in plots)}</div>')
    heads = ["step", "who runs", "new files", grows.metric or "accuracy", "after training, in torch"]
    rows = [
        (str(k), mask, _new(grows, k), "-" if a is None else f"{a:.4f}", f"{grows.in_torch[k]:.4f}")
        for k, (mask, a) in enumerate(zip(grows.masks, grows.accuracy, strict=True))
    ]
    parts.append(table(heads, rows, numbers=(0, 3, 4)))
    if grows.stall_ms and grows.control_ms:
        parts.append(_stalls(grows))
    return "\n".join(parts)


def _stalls(grows: Grows) -> str:
    rows = [
        (name, str(count), *(f"{v:.3f}" for v in values))
        for name, count, values in (
            ("while it grew", grows.requests[0], grows.stall_ms or ()),
            ("held at each step", grows.requests[1], grows.control_ms or ()),
        )
    ]
    text = (
        f"Milliseconds that requests took longer than the median of their step with nothing to load, at {grows.hz:g} a second on {grows.where}; "
        f"loading was slowed down to {grows.mb_s:.3g} MB/s, so that every step met requests."
    )
    peak = ""
    if grows.peak_mb and grows.whole_peak_mb:
        peak = f" Peak memory {grows.peak_mb:.0f} MB; {grows.whole_peak_mb:.0f} MB where the whole model is opened."
    return f"<p>{escape(text + peak)}</p>" + table(
        ["requests", "count", "p50", "p99", "largest"], rows, numbers=range(1, 5)
    )


def _new(grows: Grows, step: int) -> str:
    """Return the segments that a step brings, with their bytes; they are named by stage and owner."""
    stages = len(grows.masks) - 1
    names = [f"t{step}", f"enc{step}"] if step else [f"s{k + 1}" for k in range(stages)]
    found = [(n, grows.bytes[n]) for n in names if n in grows.bytes]
    return f"{', '.join(n for n, _ in found)} ({_mb(sum(b for _, b in found))})"


def _accuracy(grows: Grows) -> str:
    """Return accuracy over time, a step at each change."""
    known = [a for a in grows.accuracy if a is not None]
    if len(known) < len(grows.masks) or not grows.changes:
        return ""
    points: list[tuple[float, float]] = []
    for at, step in grows.changes:
        if points:
            points.append((at, points[-1][1]))
        points.append((at, known[step]))
    points.append((max(grows.latency[-1][0] if grows.latency else 0.0, points[-1][0] * 1.1), points[-1][1]))
    return lines(
        [Line(name=f"{grows.metric} expected", points=points, tone="line")], x_label="seconds since load",
        y_label=grows.metric, title="Accuracy over time",
    )  # fmt: skip


def _latency(grows: Grows) -> str:
    if not grows.latency:
        return ""
    points = [(t, ms) for t, ms, _ in grows.latency]
    return lines(
        [Line(name="request", points=points, tone="second")], x_label="seconds since load", y_label="ms",
        title="Requests over time",
    )  # fmt: skip


def _memory(grows: Grows) -> str:
    if len(grows.memory) < 2:
        return ""
    return lines(
        [Line(name="resident", points=list(grows.memory), tone="third")], x_label="seconds since load", y_label="MB",
        title="Memory over time",
    )  # fmt: skip


def _mb(count: int) -> str:
    return f"{count / 1e6:.3g} MB"
