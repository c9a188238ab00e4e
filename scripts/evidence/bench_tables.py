"""Say what the evidence of benches, comparisons and boards found, for `tables.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EVIDENCE = Path(__file__).resolve().parents[2] / "docs" / "evidence"


def kept(name: str) -> dict[str, Any] | None:
    """Return the kept evidence of a name, None where there is none."""
    path = EVIDENCE / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def where(data: dict[str, Any]) -> str:
    """Return what was measured on, in words."""
    machine = data["machine"]
    return f"{machine['cpu']}, {machine['cores_physical']} cores"


def compare() -> str:
    """Return how often comparisons were wrong and right."""
    data = kept("compare")
    if not data or "summary" not in data:
        return "Not measured yet."
    found = data["summary"]
    return (
        f"Measured on {where(data)} with a net of {found['median_ms']:.1f} ms (`scripts/evidence/compare.py`): "
        f"{found['same']} comparisons of a build with itself raised {found['same_alarms']} alarms, and "
        f"{found['resampled_alarms']} of {found['resamplings']:,} resamplings of their blocks did. "
        f"Of {found['planted']} slowdowns of 8 % that were planted, {found['planted_fair']} had a smallest detectable change below 8 %, "
        f"and {found['planted_found']} of those were found. Half of the comparisons would have found {100 * found['smallest_median']:.1f} %."
    )


def telemetry() -> str:
    """Return what telemetry costs."""
    data = kept("telemetry")
    if not data:
        return "What it costs was not measured yet."
    ratio = data["ratio"]
    return (
        f"What it costs, measured on {where(data)} at {data['hz']:g} Hz with {data['sensors']} sensors (`scripts/evidence/telemetry.py`): "
        f"{100 * data['cost']:.2f} % of one core; latencies with it on are {ratio['ratio']:.4f} times those with it off "
        f"(95 %: {ratio['low']:.4f} to {ratio['high']:.4f}, {data['blocks']} blocks each)."
    )


def percentiles() -> str:
    """Return p90 against other tools."""
    data = kept("percentiles")
    if not data:
        return "Not compared with other tools yet."
    lines = ["| p90 against | edgekit | peer | ratio (95 %) |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {r['edgekit_p90_ms']:.2f} ms | {r['peer_p90_ms']:.2f} ms | {r['ratio']:.3f} ({r['low']:.3f} to {r['high']:.3f}) |"
        for name, r in data["peers"].items()
    ]
    tools = ", ".join(f"{k} {v}" for k, v in data["tools"].items())
    lines += [
        "",
        f"Measured {data['date']} on {where(data)}: YOLOv8n at {data['side']} px, {data['threads']} thread, {data['rounds']} rounds of "
        f"{data['seconds']:g} s, in turns, {tools}: `scripts/bench/percentiles.py`.",
    ]
    return "\n".join(lines)


def boards() -> str:
    """Return what cuts and many agents did."""
    parts = []
    if data := kept("cuts"):
        rows = data["trials"]
        never = sum(r["never_began"] for r in rows)
        lost = sum(not r["results"] and not r["never_began"] for r in rows)
        collected = sum(r["collects"] > 0 for r in rows)
        parts.append(
            f"{len(rows)} cuts of the line at random moments, 0.2 to 20 s long (`scripts/evidence/cuts.py`): {lost} results lost, "
            f"{sum(r['results'] > 1 for r in rows)} stored twice; {collected} were collected later, {never} runs could not begin and said so."
        )
    if data := kept("agents"):
        given_up = data["agents"] - data["complete"]
        parts.append(
            f"{data['agents']} agents over one sshd, {data['killed']} times one was killed on the way (`scripts/evidence/agents.py`): "
            f"{data['complete']} results, {data['begun_again']} of them begun again, and {given_up} given up after three kills each, with that reason; "
            f"{data['agents'] - data['stored']} lost, {data['stored'] - data['boards_with_one_result']} doubled, at most {data['most_at_once']} seen at work at once, "
            f"in {data['seconds'] / 60:.0f} minutes, {data['host_peak_mb']:.0f} MB at the host's peak."
        )
    return "\n".join(parts) or "Not measured yet."
