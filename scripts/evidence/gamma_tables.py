"""Make the tables and plots of the γ-Quant comparison from its JSON files; `tables.py` writes them into the guide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from edgekit.reports.svg import Line, lines

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "gamma"
_NAMES = {
    "none": "unquantised", "linear": "linear", "log": "log", "mu-law": "μ-law", "gamma": "learned γ and gain",
    "gamma-paper": "learned γ alone",
}  # fmt: skip
# A page's style sheet does not reach into a picture.
_STYLE = (
    "<style>svg{background:#fff}text{font:11px system-ui,sans-serif;fill:#5b6577}.axis{stroke:#5b6577}.grid{stroke:#d9dee7}"
    "polyline,line{fill:none;stroke-width:1.6}.line{stroke:#1f6fd6}.second{stroke:#b3261e}.third{stroke:#137a4b}"
    ".fourth{stroke:#8a5a00}"
    ".fifth{stroke:#7b3fb5}.whole{stroke:#5b6577;stroke-dasharray:5 3}circle{fill:#fff;stroke-width:1.6}</style>"
)
_TONES = ("line", "second", "third", "fourth", "fifth")


def runs(task: str) -> list[dict[str, Any]]:
    """Return every run of a task."""
    return [json.loads(p.read_text()) for p in sorted(KEPT.glob(f"{task}-*.json"))]


def _arm(run: dict[str, Any]) -> tuple[str, int]:
    curve = "gamma-paper" if run["mode"] == "paper" and run["curve"] == "gamma" else run["curve"]
    return curve, int(run["bits"])


def arms(task: str) -> dict[tuple[str, int], list[float]]:
    """Return the metric of every seed by curve and bits."""
    found: dict[tuple[str, int], list[float]] = {}
    for run in runs(task):
        found.setdefault(_arm(run), []).append(float(run["value"]))
    return found


def cell(values: Sequence[float] | None) -> str:
    """Return the mean of the seeds in percent, with half of their span."""
    if not values:
        return "-"
    spread = f" ± {50 * (max(values) - min(values)):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def grid(task: str) -> str:
    """Return a table: curves down, bits across."""
    found = arms(task)
    if not found:
        return "Not run yet."
    widths = sorted({b for _, b in found}, reverse=True)
    curves = [c for c in _NAMES if any(k == c for k, _ in found)]
    rows = [f"| curve | {' | '.join(f'{b} bits' for b in widths)} |", f"|{'---|' * (len(widths) + 1)}"]
    rows += [f"| {_NAMES[c]} | {' | '.join(cell(found.get((c, b))) for b in widths)} |" for c in curves]
    return "\n".join([*rows, "", _about(task), *_targets(task, found)])


def _about(task: str) -> str:
    some = runs(task)
    one = some[0]
    seeds = sorted({r["seed"] for r in some})
    dates = sorted({r["date"] for r in some})
    minutes = mean(r["cpu_seconds"] for r in some) / 60
    return (
        f"{one['metric']} in percent, mean of seeds {', '.join(map(str, seeds))} with half of their span; {one['images']} "
        f"training samples, {one['settings']['epochs']} epochs, {minutes:.1f} CPU minutes a run, {one['scores']['images']} validation samples. "
        f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))} on {_machine(one['machine'])} by "
        f"`scripts/evidence/gamma.py {task}`."
    )


def _targets(task: str, found: dict[tuple[str, int], list[float]]) -> list[str]:
    """Return what the comparison comes to, in words."""
    whole = {k: mean(v) for k, v in found.items() if k[1] == 12}
    learned, linear = found.get(("gamma", 4)), found.get(("linear", 4))
    if not whole or not learned or not linear:
        return []
    best = max(whole, key=lambda k: whole[k])
    return [
        "",
        f"Four learned bits against the best 12-bit input ({_NAMES[best[0]]}): {100 * (mean(learned) - whole[best]):+.1f} points; "
        f"against four linear bits: {100 * (mean(learned) - mean(linear)):+.1f} points.",
    ]


def _machine(facts: dict[str, Any]) -> str:
    isa = " ".join(f for f in facts["isa"] if f.startswith(("avx512_", "avx_vnni", "amx", "asimddp")))
    return f"{facts['cpu']}, {facts['cores_physical']} cores ({isa})"


def _last(name: str) -> dict[str, Any] | None:
    found = sorted((ROOT / "docs" / "evidence").glob(f"{name}-*.json"))
    return json.loads(found[-1].read_text()) if found else None


def front() -> str:
    """Return what codes cost a detector, and how fast they are made."""
    data = _last("sensor_front")
    if data is None:
        return "Not run yet."
    rows = [
        "| engine | bits | values as floats | packed codes | front, share of the profile |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {r['backend']} | {r['bits']} | {r['floats_ms']:.1f} ms | {r['codes_ms']:.1f} ms ({r['times_as_long']:.2f} times) "
        f"| {r['front_share']:.1%} |"
        for r in data["rows"]
    ]
    rows += [
        "",
        "| encoder, one frame of 640 x 640 values, one core | C header, table | C header, thresholds | numpy |",
    ]
    rows += ["|---|---|---|---|"]
    rows += [
        f"| {e['bits']} bits | {e['c_ms']:.2f} ms, {e['c_mb_s']:.0f} MB/s | {e['thresholds_ms']:.2f} ms | {e['numpy_ms']:.2f} ms |"
        for e in data["encoders"]
    ]
    words = f"Medians of {data['runs']} runs or more, one process a contender, alternating, {data['date']} on {_machine(data['machine'])}"
    return "\n".join([*rows, "", f"{words}: `scripts/bench/sensor_front.py`."])


def with_int8() -> str:
    """Return what int8 weights and 4-bit input come to together."""
    data = _last("gamma_int8")
    if data is None:
        return "int8 weights together with 4-bit input: not run yet."
    low, high = data["interval"]
    return (
        f"int8 weights together with 4-bit input (`gamma-quant-raw-detect`, {data['variant']}): {data['metric']} {data['int8']:.4f} against "
        f"{data['float32']:.4f} in float32, both behind 4 bits; drop {data['drop']:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, "
        f"{data['images']} images), {data['int8_ms']:.1f} ms against {data['float32_ms']:.1f} ms, {data['bytes_per_frame']:,} bytes a frame instead of "
        f"{data['sensor_bytes_per_frame']:,}. Measured {data['date']} on {_machine(data['machine'])}: `scripts/evidence/gamma_int8.py`."
    )


def short() -> str:
    """Return the comparison in a few words, for the first page."""
    rows = [
        "| task | best 12-bit input | linear, 4 bits | learned, 4 bits | learned, 2 bits |",
        "|---|---|---|---|---|",
    ]
    names = {
        "detect": "small objects in dark raw frames, AP50",
        "digits": "digits in the dark, accuracy",
        "wear": "motion at the wrist, macro F1",
    }
    for task, name in names.items():
        found = arms(task)
        whole = [v for k, v in found.items() if k[1] == 12]
        best = max(whole, key=mean) if whole else None
        rows.append(
            f"| {name} | {cell(best)} | {cell(found.get(('linear', 4)))} | {cell(found.get(('gamma', 4)))} | {cell(found.get(('gamma', 2)))} |"
        )
    return "\n".join(
        [
            *rows,
            "",
            "Percent, means of seeds with half of their span; machines, arms and budgets: [few bits from the sensor](docs/gamma-quant.md).",
        ]
    )


def plot(task: str) -> str:
    """Return the metric over bits as a picture of its own, one line a curve."""
    found = arms(task)
    drawn = []
    for curve in ("gamma", "log", "linear", "gamma-paper", "mu-law"):
        points = sorted((float(b), 100 * mean(v)) for (c, b), v in found.items() if c == curve and b <= 8)
        if points:
            drawn.append(Line(name=_NAMES[curve], points=points, tone=_TONES[len(drawn)]))
    whole = {k: 100 * mean(v) for k, v in found.items() if k[1] == 12}
    if not drawn or not whole:
        return ""
    best = max(whole, key=lambda k: whole[k])
    low, high = (f(p[0] for one in drawn for p in one.points) for f in (min, max))
    drawn.append(
        Line(
            name=f"12 bits, {_NAMES[best[0]]}", points=[(low, whole[best]), (high, whole[best])], tone="whole"
        )
    )
    metric = {"map50": "AP50", "top1": "accuracy", "macro_f1": "macro F1"}[runs(task)[0]["metric"]]
    svg = lines(drawn, x_label="bits a value", y_label="%", title=f"{metric} over bits")
    return (
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace("><", f">{_STYLE}<", 1)
        + "\n"
    )


def pictures() -> dict[Path, str]:
    """Return every plot by the file it belongs in."""
    made = {KEPT / f"{task}.svg": plot(task) for task in ("detect", "digits", "wear")}
    return {path: text for path, text in made.items() if text}
