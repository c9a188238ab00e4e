"""Compile the shipped pipeline as it came and slimmed, in float32 and in int8, and put size, time and pictures side by side.

    python scripts/evidence/slimdiff_int8.py --work /somewhere
    python scripts/evidence/slimdiff_int8.py --slice --work …       # one row, for CI

Each row is a compile of its own by the command line, on onnxruntime, times of its short bench. Leaves
docs/evidence/slimdiff/int8-DATE.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from where import leave

from edgekit.models.pipelines import shipped_pipelines

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "slimdiff"
SLIM = "slimdiff: {keep: 0.587, prompts: 60, steps: 15, probe_prompts: 4, round_ranks: 1, round_neurons: 8}"
# By what each compile does to the network: its passes, and the precision it is asked for.
ROWS = {
    "as it came": ("", "fp32"), "weights in fp16": ("quantize-weights: {to: fp16}", "fp32"),
    "weights in int8": ("quantize-weights", "fp32"), "int8": ("quantize-int8", "int8"),
    "slimmed to 0.587": (SLIM, "fp32"), "slimmed, weights in int8": (f"{SLIM}, quantize-weights", "fp32"),
    "slimmed, int8": (f"{SLIM}, quantize-int8", "int8"),
}  # fmt: skip


def row(what: str, passes: str, precision: str, work: Path, judged: int) -> dict[str, Any]:
    """Return what one compile found."""
    folder = work / what.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "glyphs.yaml"
    recipe.write_text(
        "schema: edgekit/recipe/v1\nmodel: {pipeline: glyphs-ldm}\n"
        f"diffusion: {{prompts: prompts.txt, held_out: 16, steps: 15, guidance: 3, judge: judge.onnx, judged: {judged}}}\n"
        f"passes: [{passes}]\nbench: {{mode: smoke}}\ndevices: {{local: {{backend: onnxruntime}}}}\n"
    )
    words = [
        sys.executable,
        "-c",
        "from edgekit.cli import main; main()",
        "compile",
        str(recipe),
        "-o",
        str(folder / "out"),
    ]
    subprocess.run(
        [*words, "--precision", precision, "--work-dir", str(work / "cache")], check=True, cwd=folder
    )
    report = json.loads((folder / "out" / "glyphs-local" / "report.json").read_text())
    chosen, paints = report["variants"][0], report["paints"]
    middle = next(t["plain_ms"] for t in chosen["latencies"][0]["tails"] if t["share"] == 0.5)
    return {
        "what": what, "variant": chosen["name"], "mb": chosen["size_mb"], "ms": middle, "latent_error": sum(paints["errors"]) / len(paints["errors"]),
        "right": paints["right"], "dense_right": paints["dense_right"], "step_ratio": paints["step_ratio"], "label": chosen["latencies"][0]["label"],
    }  # fmt: skip


def main() -> None:
    """Compile every row, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--judged", type=int, default=200)
    parser.add_argument("--slice", action="store_true")
    parser.add_argument("--out", type=Path, default=KEPT)
    given = parser.parse_args()
    assert shipped_pipelines()["glyphs-ldm"].is_dir()
    if given.slice:
        given.judged = 10
    chosen = {k: v for k, v in ROWS.items() if not given.slice or k == "weights in int8"}
    rows = [row(what, *how, given.work, given.judged) for what, how in chosen.items()]
    leave(
        given.out,
        "int8",
        {"rows": rows, "judged": given.judged},
        packages=("onnxruntime", "torch", "diffusers"),
    )
    for one in rows:
        print(one)


if __name__ == "__main__":
    main()
