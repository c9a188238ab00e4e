"""Compile the shipped recipe in its standard mode and keep what was found.

    python scripts/evidence/uav_yolov8n.py          # about ten minutes on two cores
    python scripts/evidence/uav_yolov8n.py --slice  # a minute: nothing is kept

Steps that are finished are taken from the cache, so an interrupted run goes on.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgekit.core.digest import plain
from edgekit.core.files import write_json
from edgekit.jobs.api import compile_recipe

ROOT = Path(__file__).resolve().parent.parent.parent


def shortened(folder: Path) -> Path:
    """Write the recipe with one engine and few images: a slice shows that the script works."""
    text = (ROOT / "recipes" / "uav-yolov8n.yaml").read_text()
    text = text.replace("  samples: 256\n", "  samples: 32\n  limit: 40\n", 1)
    text = text.replace("quantize-int8: {max_drop: 0.01}", "quantize-int8")
    path = folder / "uav-yolov8n.yaml"
    path.write_text(text.replace("\ndevices:", "\ndevices:\n  local: {backend: openvino}\n#", 1))
    return path


def main() -> None:
    """Compile and keep."""
    short = "--slice" in sys.argv
    with tempfile.TemporaryDirectory() as folder:
        recipe = shortened(Path(folder)) if short else "uav-yolov8n"
        done = compile_recipe(recipe, device="local", output=folder, quick=short)
    outcome = done.outcome
    chosen = outcome.variants[0]
    reference = next(v for v in outcome.variants if v.name == outcome.reference)
    assert chosen.accuracy
    assert reference.accuracy
    today = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    kept: dict[str, Any] = {
        "date": today, "commit": commit.stdout.strip(), "machine": dict(outcome.measured_on),
        "variant": f"{chosen.name} {chosen.style}".strip(), "classes": outcome.model["classes"],
        "chosen": plain(chosen.accuracy), "float32": plain(reference.accuracy),
        "verdict": outcome.words, "verdicts": plain(outcome.verdicts), "speedup": outcome.speedup,
        "latency": [
            {"span": x.span, "runs": x.runs, "label": x.label, "percentiles": plain(x.tails)} for x in chosen.latencies
        ],
        "variants": [
            {"name": v.name, "style": v.style, "contest_ms": v.contest_ms,
             "map50": v.accuracy.value if v.accuracy else None}
            for v in outcome.variants
        ],
    }  # fmt: skip
    print(
        f"{outcome.words}: {chosen.name}, map50 {chosen.accuracy.value:.4f}, drop {chosen.accuracy.drop:+.4f}"
    )
    if not short:
        write_json(ROOT / "docs" / "evidence" / f"uav_yolov8n-{today}.json", kept)


if __name__ == "__main__":
    main()
