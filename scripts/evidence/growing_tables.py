"""Make the tables of progressive loading from its JSON files; `tables.py` writes them into the pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from where import machine

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "growing"
_NAMES = {"resnet": "ResNet", "vgg": "VGG", "vit": "ViT"}


def runs(task: str) -> list[dict[str, Any]]:
    """Return every run of a task."""
    return [json.loads(p.read_text()) for p in sorted(KEPT.glob(f"{task}-*.json"))]


def _cells(rows: Sequence[Sequence[float]]) -> str:
    """Return the mean of each step over the seeds in percent, with half of the span."""
    found = []
    for values in zip(*rows, strict=True):
        spread = f" ± {50 * (max(values) - min(values)):.1f}" if len(values) > 1 else ""
        found.append(f"{100 * mean(values):.1f}{spread}")
    return " / ".join(found)


def accuracy() -> str:
    """Return accuracy by step: classifiers of three families, and a detector."""
    found = runs("accuracy") + runs("detector")
    lines = ["| pair | training | accuracy by step, % (the last is the teacher) |", "|---|---|---|"]
    for family, name in _NAMES.items():
        for arm, said in (("prefix", "all terms, prefix masks"), ("control", "control")):
            rows = [r["accuracy"] for r in found if r.get("family") == family and r["arm"] == arm]
            if rows:
                seeds = f"{len(rows)} seed{'s' * (len(rows) > 1)}"
                lines.append(f"| {name}, {seeds} | {said} | {_cells(rows)} |")
    for run in (r for r in found if r["task"] == "detector"):
        said = "all terms, prefix masks" if run["arm"] == "prefix" else "control"
        lines.append(f"| HierLight-YOLO-N behind T, AP50 | {said} | {_cells([run['accuracy']])} |")
    first = found[0]
    dates = sorted({r["date"] for r in found})
    pair = next(r for r in found if r["task"] == "accuracy")
    lines += [
        "",
        f"± is half of the span of the seeds. Classifiers: digits of 32 px (`digits-mini`), judged on 1,000 pictures, {pair['epochs']} epochs. {_detector(found)}"
        f"Trained {' to '.join(dict.fromkeys((dates[0], dates[-1])))} on {machine(first)}: `scripts/evidence/growing.py`.",
    ]
    return "\n".join(lines)


def _detector(found: list[dict[str, Any]]) -> str:
    run = next((r for r in found if r["task"] == "detector"), None)
    if run is None:
        return ""
    return (
        f"Detector: {run['epochs'] * run['tiles']:,} tiles of generated scenes (`uav-mini`) from scratch, judged on {run['judged_on']} "
        f"images of 640 px; the teacher is the shipped one. "
    )


def with_int8() -> str:
    """Return accuracy by step of each variant of the demo."""
    (data,) = [json.loads(p.read_text()) for p in KEPT.glob("int8.json")]
    heads = data["masks"]
    lines = [f"| variant | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    rows = {"torch, all validation pictures": data["in_torch"], **data["accuracy"]}
    lines += [f"| {n} | {' | '.join(f'{100 * a:.1f}' for a in r)} |" for n, r in rows.items()]
    return "\n".join(
        [
            *lines,
            "",
            f"`progressive-digits` with `quantize-int8`, top-1 in percent, {data['date']}, {machine(data)}.",
        ]
    )


def serve() -> str:
    """Return first answers, stalls and memory of a growing ResNet-50."""
    found = runs("serve")
    lines = ["| | " + " | ".join(r["backend"] for r in found) + " |", "|---" * (len(found) + 1) + "|"]
    rows = {
        "bytes before the first answer, of the whole": lambda r: (
            f"{_mb(r['bytes']['first_bytes'])} of {_mb(r['bytes']['whole_bytes'])}"
        ),
        "first answer, cold disk": lambda r: _against(median(r["first_ms"]), median(r["whole_ms"])),
        "first answer, a line of 10 Mbit/s": lambda r: _against(r["link"]["first_ms"], r["link"]["whole_ms"]),
        "requests while it grew, above twice their step's p99": lambda r: (
            f"{r['steady']['requests'][0]}, {r['steady']['above_twice']}"
        ),
        "the same with nothing to load": lambda r: (
            f"{r['steady']['requests'][1]}, {r['steady']['control_above_twice']}"
        ),
        "longer than usual while it grew, p50 p99 largest": lambda r: _spread(r["steady"]["stall_ms"]),
        "the same with nothing to load, p50 p99 largest": lambda r: _spread(r["steady"]["control_ms"]),
        "peak memory, against the whole model's": lambda r: (
            f"{r['peak_mb']['grow']:.0f} MB, {r['peak_mb']['grow'] / median(r['peak_mb']['whole']):.2f} times"
        ),
    }
    lines += [f"| {name} | {' | '.join(say(r) for r in found)} |" for name, say in rows.items()]
    return "\n".join(
        [
            *lines, "",
            f"A ResNet-50 of random weights at 64 px behind a student of half its width with a block a stage, one thread; 30 requests a second "
            f"while it grew for a minute, and as long again held at each step; {len(found[0]['first_ms'])} fresh processes a figure, "
            f"files dropped from the page cache before each. {found[0]['date']}, {machine(found[0])}: `scripts/evidence/growing.py serve`.",
        ]
    )  # fmt: skip


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _against(first: float, whole: float) -> str:
    return f"{first:,.0f} ms, {first / whole:.2f} of loading it whole ({whole:,.0f} ms)"


def _spread(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.1f}" for v in values) + " ms"
