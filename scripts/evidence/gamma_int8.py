"""Compile the raw detector in its standard mode and keep what int8 weights and 4-bit input come to together.

python scripts/evidence/gamma_int8.py            # trains and measures: some twenty minutes on two cores
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from edgekit.core.files import write_json
from edgekit.machine.probe import passport

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    """Compile, read the report, keep the figures."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "compile",
            str(ROOT / "recipes" / "gamma-quant-raw-detect.yaml"),
            "--device",
            "x86-cpu",
            "--precision",
            "int8",
            "-o",
            folder,
            "--json",
        ]
        done = subprocess.run(
            [sys.executable, "-c", "from edgekit.cli import main; main()", *words],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        report = json.loads(done.stdout)
    chosen = report["variants"][0]
    reference = next(v for v in report["variants"] if v["name"] == report["reference"])
    facts, accuracy = passport(), chosen["accuracy"]
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    date = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d")
    kept = {
        "date": date, "commit": said.stdout.strip(), "verdict": report["verdict"], "variant": f"{chosen['name']} {chosen['style']}".strip(),
        "metric": accuracy["metric"], "int8": accuracy["value"], "float32": accuracy["value"] + accuracy["drop"], "drop": accuracy["drop"],
        "interval": accuracy["interval"], "images": accuracy["images"], "int8_ms": chosen["contest_ms"], "float32_ms": reference["contest_ms"],
        "speedup": report["speedup"], "bytes_per_frame": report["link"]["bytes_per_frame"],
        "sensor_bytes_per_frame": report["link"]["sensor_bytes_per_frame"], "link": report["link"],
        "precision_share": chosen["share"], "machine": {k: facts[k] for k in ("cpu", "isa", "cores_physical", "memory_mb")},
    }  # fmt: skip
    write_json(ROOT / "docs" / "evidence" / f"gamma_int8-{date}.json", kept)
    print({k: kept[k] for k in ("verdict", "variant", "int8", "float32", "drop", "int8_ms", "float32_ms")})


if __name__ == "__main__":
    main()
