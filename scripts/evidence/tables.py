"""Rebuild the tables of README, cards and pages from the JSON of the last measurements.

python scripts/evidence/tables.py            # writes between the markers
python scripts/evidence/tables.py --check    # exits 1 where one is stale
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from edgekit.predict.latency import judge

ROOT = Path(__file__).resolve().parent.parent.parent
EVIDENCE = ROOT / "docs" / "evidence"


def last(name: str) -> dict[str, Any]:
    """Return the newest measurement of a name; its date stands in the file's name."""
    data: dict[str, Any] = json.loads(max(EVIDENCE.glob(f"{name}-*.json")).read_text())
    return data


def machine(data: dict[str, Any]) -> str:
    """Return what was measured on, in words."""
    facts = data["machine"]
    isa = " ".join(f for f in facts["isa"] if f.startswith(("avx512_", "avx_vnni", "amx", "asimddp")))
    return f"{facts['cpu']}, {facts['cores_physical']} cores ({isa})"


def peers() -> str:
    """Return the table of ratios against ultralytics."""
    data = last("vs_ultralytics")
    lines = ["| span | edgekit | peer | peer's time | times as fast (rounds) |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['span']} | {row['edgekit_ms']:.1f} ms | {row['peer']} | {row['peer_ms']:.1f} ms "
        f"| {row['times_as_fast']:.2f} ({row['least']:.2f} to {row['most']:.2f}) |"
        for row in data["ratios"]
    ]
    scores = ", ".join(f"{name} {value:.4f}" for name, value in data["map50"].items())
    tools = ", ".join(f"{k} {v}" for k, v in data["tools"].items())
    lines += ["", f"mAP50 on the same {data['images']} images by the same code: {scores}."]
    lines += [
        f"Measured {data['date']} on {machine(data)}, {data['rounds']} rounds, {tools}: `scripts/bench/vs_ultralytics.py`."
    ]
    return "\n".join(lines)


def verdict() -> str:
    """Return the verdict of the shipped recipe in its standard mode."""
    data = last("uav_yolov8n")
    chosen = data["chosen"]
    lines = ["| | float32 | int8 |", "|---|---|---|"]
    for name in ("map50", "map50_95"):
        lines.append(f"| {name} | {data['float32']['scores'][name]:.4f} | {chosen['scores'][name]:.4f} |")
    for band in ("under 8", "8-16", "16-32", "over 32"):
        lines.append(
            f"| AP50, {band} px | {data['float32']['by_size'][band]:.4f} | {chosen['by_size'][band]:.4f} |"
        )
    for name in data["classes"]:
        lines.append(
            f"| AP50, {name} | {data['float32']['by_class'][name]:.4f} | {chosen['by_class'][name]:.4f} |"
        )
    low, high = chosen["interval"]
    lines += [
        "",
        f"Drop of map50 {chosen['drop']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, {chosen['images']} images, {data['variant']}.",
    ]
    lines += [f"Measured {data['date']} on {machine(data)} by `scripts/evidence/uav_yolov8n.py`."]
    return "\n".join(lines)


def predictor() -> str:
    """Return the predictor's errors on the held-out rows, computed now."""
    rich, poor = judge()
    return (
        f"median relative error {100 * rich.median_error:.1f} % on {rich.rows} held-out rows whose device and backend "
        f"have at least 4 fitted rows ({100 * rich.covered:.0f} % inside their band), {100 * poor.median_error:.1f} % on "
        f"the other {poor.rows} ({100 * poor.covered:.0f} % inside)."
    )


def demo() -> str:
    """Return what `scripts/demo` printed last, progress left out."""
    path = max(EVIDENCE.glob("demo-*.txt"))
    return f"```text\n{path.read_text().strip()}\n```"


TABLES = {
    "demo": (("README.md",), demo),
    "peers": (("README.md",), peers),
    "verdict": (("models/uav-yolov8n.md",), verdict),
    "predictor": (("README.md", "docs/measuring.md"), predictor),
}


def main() -> int:
    """Write or check every table."""
    stale = 0
    for name, (pages, make) in TABLES.items():
        text = make()
        for page in pages:
            path = ROOT / page
            old = path.read_text()
            new = re.sub(
                rf"(<!-- {name} -->).*?(<!-- /{name} -->)",
                lambda m, t=text: f"{m[1]}\n{t}\n{m[2]}",
                old,
                flags=re.DOTALL,
            )
            if f"<!-- {name} -->" not in old:
                raise SystemExit(f"{page}: has no marker {name}")
            if "--check" in sys.argv and new != old:
                print(f"{page}: the table {name!r} is stale, run scripts/evidence/tables.py")
                stale += 1
            elif new != old:
                path.write_text(new)
    return stale


if __name__ == "__main__":
    sys.exit(main() > 0)
