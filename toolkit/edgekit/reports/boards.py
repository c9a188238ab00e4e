"""Draw the results of many boards in one HTML page: ranking, latency over time and heat, distributions."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgekit.core.result import Result
from edgekit.reports.page import CSS, table
from edgekit.reports.result_words import energy_words, subject_words, telemetry_words
from edgekit.reports.svg import Points, Series, histogram, timeline

# What the field asks of passively cooled boards: how fast at first, and how fast when warm.
_EARLY_S, _LATE_S = 60.0, 1800.0


def boards_page(results: Sequence[Result]) -> str:
    """Return one HTML page, no network needed, for complete and failed results."""
    done = [r for r in results if r.state == "complete" and r.spans]
    real = sorted((r for r in done if not r.emulated), key=_warm_ms)
    unreal = [r for r in done if r.emulated]
    failed = [r for r in results if r.state != "complete"]
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>edgekit: {len(results)} results</title><style>{CSS}</style></head><body>",
        f"<h1>{len(results)} results</h1>", f'<p class="soft">{escape(_summary(results))}</p>',
        *(_ranking(group) for group in _alike(real)), _emulated(unreal), _failed(failed), *(_board(r) for r in (*real, *unreal)), "</body></html>",
    ]  # fmt: skip
    return "\n".join(p for p in parts if p) + "\n"


def _summary(results: Sequence[Result]) -> str:
    boards = {r.device for r in results}
    days = sorted(r.when[:10] for r in results)
    span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return f"{len(boards)} devices, measured {span}. Every figure is a measurement; none is predicted."


def _at(result: Result, start_s: float) -> float | None:
    """Return the median of the bursts within the minute that ends at `start_s`, None where it did not run so long."""
    inside = sorted(ms for t, ms in result.blocks_ms if start_s - 60 <= t < start_s)
    reached = bool(result.blocks_ms) and result.blocks_ms[-1][0] >= start_s - 60
    return inside[len(inside) // 2] if inside and reached else None


def _early_ms(result: Result) -> float:
    found = _at(result, _EARLY_S)
    return found if found is not None else result.spans[0].median_ms


def _warm_ms(result: Result) -> float:
    late = _at(result, _LATE_S)
    return late if late is not None else _early_ms(result)


def _alike(results: Sequence[Result]) -> list[list[Result]]:
    """Return results in groups of one model and one span: only those can be ranked."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for one in results:
        groups.setdefault((one.subject.name, one.spans[0].span), []).append(one)
    return list(groups.values())


def _ranking(results: Sequence[Result]) -> str:
    """Return the ranking at minute 1 and at minute 30: a board that leads cold can trail when warm."""
    if not results:
        return ""
    early = {r.id: k for k, r in enumerate(sorted(results, key=_early_ms), 1)}
    late = {r.id: k for k, r in enumerate((r for r in results if _at(r, _LATE_S) is not None), 1)}
    rows = []
    for r in results:
        warm = _at(r, _LATE_S)
        change = "-" if warm is None else f"{100 * (warm / _early_ms(r) - 1):+.1f} %"
        p90 = r.spans[0].carried_ms(0.9)
        rows.append(
            (
                escape(r.device), escape(f"{r.subject.name} {r.subject.variant or r.subject.backend}"),
                f"{_early_ms(r):.2f} ms", f"{early[r.id]}", "not run so long" if warm is None else f"{warm:.2f} ms",
                f"{late.get(r.id, '-')}", change, "n/a" if p90 is None else f"{p90:.2f} ms", escape(r.spans[0].label),
                escape(r.telemetry.throttled if r.telemetry else "unknown"),
            )
        )  # fmt: skip
    heads = (
        "device",
        "model",
        "minute 1",
        "rank",
        "minute 30",
        "rank",
        "change",
        "p90",
        "label",
        "throttled",
    )
    what = f"{results[0].subject.name}, {results[0].spans[0].span.replace('_', ' ')}"
    how = f"<p class=soft>Medians of {escape(what)}; minute 30 only where the run lasted so long.</p>"
    return "<h2>Ranking</h2>" + how + table(heads, rows, numbers=(2, 3, 4, 5, 6, 7))


def _emulated(results: Sequence[Result]) -> str:
    if not results:
        return ""
    names = ", ".join(escape(f"{r.device} ({r.emulated})") for r in results)
    return f"<h2>Emulated</h2><p>Not ranked, their latencies say nothing about a board: {names}.</p>"


def _failed(results: Sequence[Result]) -> str:
    if not results:
        return ""
    rows = [
        (
            escape(r.device),
            escape(r.when),
            escape(r.reason[0] if r.reason else "?"),
            escape(r.reason[1] if len(r.reason) > 1 else ""),
        )
        for r in results
    ]
    return "<h2>Failed</h2>" + table(("device", "when", "code", "what happened"), rows)


def _board(result: Result) -> str:
    """Return one board's plots and facts."""
    plots = [
        f"<div>{timeline(result.blocks_ms, heat_of(result), label=f'Latency of {result.device} over time')}</div>"
    ]
    values = result.spans[0].samples_ms
    if values:
        series = [
            Series(name=f"{result.spans[0].span}, {result.spans[0].runs} runs", values=values, tone="chosen")
        ]
        plots.append(f"<div>{histogram(series, label='ms (up to p99)')}</div>")
    notes = "".join(f"<li>{escape(n)}</li>" for n in result.notes)
    passport = [(escape(k.replace("_", " ")), escape(str(v))) for k, v in result.passport.items()]
    return (
        f'<section><h2>{escape(result.device)}</h2><p class="soft">{escape(subject_words(result))}, {escape(result.when)}</p>'
        f'<div class="two">{"".join(plots)}</div>'
        f"<p>Sensors: {escape(telemetry_words(result.telemetry))}.<br>Energy: {escape(energy_words(result.energy))}.</p>"
        f"{f'<ul>{notes}</ul>' if notes else ''}"
        f"<details><summary>Passport</summary>{table(('fact', 'found'), passport)}</details></section>"
    )


def heat_of(result: Result) -> Points:
    """Return the highest temperature of each reading, none where no zone could be read."""
    found = result.telemetry
    if not found:
        return ()
    zones = [c for k, c in found.columns.items() if k.startswith("temperature")]
    rows = zip(found.at_s, zip(*zones, strict=True), strict=True) if zones else ()
    hottest = ((t, [v for v in values if v is not None]) for t, values in rows)
    return tuple((t, max(v)) for t, v in hottest if v and t >= 0)
