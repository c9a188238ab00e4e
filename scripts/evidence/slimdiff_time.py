"""Ask slimdiff for a step 1.35 times as fast on this machine, and measure what it delivers.

    python scripts/evidence/slimdiff_time.py --work /somewhere
    python scripts/evidence/slimdiff_time.py --work /somewhere --slice     # a smaller one, for CI

The network is a class-conditional transformer (DiT) of 27 M parameters with random weights: nearly all of its step is attention
and feed-forward layers. The pass looks for the budget with contests of its own; afterwards the compile measures chosen against
dense in a contest of its own, and this is what stands here. Leaves docs/evidence/slimdiff/time-DATE.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from where import leave

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "slimdiff"


def transformer(folder: Path, *, layers: int, heads: int, side: int) -> int:
    """Write a DiT of random weights that denoises pixels; return its parameters."""
    import torch
    from diffusers import DDIMScheduler, DiTTransformer2DModel

    torch.manual_seed(0)
    network = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=64, in_channels=3, out_channels=6, num_layers=layers, sample_size=side,
        patch_size=2, num_embeds_ada_norm=100,
    )  # fmt: skip
    network.save_pretrained(folder / "transformer")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DiTPipeline", "transformer": ["diffusers", "DiTTransformer2DModel"], "scheduler": ["diffusers", "DDIMScheduler"],
        "id2label": {str(k): f"class {k}" for k in range(100)},
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    return sum(p.numel() for p in network.parameters())


def main() -> None:
    """Build, compile, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--speedup", type=float, default=1.35)
    parser.add_argument("--slice", action="store_true")
    parser.add_argument("--out", type=Path, default=KEPT)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    shape = {"layers": 2, "heads": 4, "side": 16} if given.slice else {"layers": 10, "heads": 6, "side": 32}
    params = transformer(given.work / "dit", **shape)
    (given.work / "prompts.txt").write_text("\n".join(f"class {k}" for k in range(100)) + "\n")
    recipe = given.work / "dit.yaml"
    recipe.write_text(
        "schema: edgekit/recipe/v1\nmodel: {pipeline: dit}\n"
        "diffusion: {prompts: prompts.txt, held_out: 2, steps: 4, guidance: 3, judged: 0}\n"
        f"passes: [slimdiff: {{speedup: {given.speedup}, prompts: 8, steps: 4, record: 3, probe: plain, probe_prompts: 2}}]\n"
        "bench: {mode: quick}\ndevices: {local: {backend: onnxruntime}}\n"
    )
    words = [
        sys.executable,
        "-c",
        "from edgekit.cli import main; main()",
        "compile",
        str(recipe),
        "-o",
        str(given.work / "out"),
        "--work-dir",
        str(given.work / "cache"),
    ]
    subprocess.run(words, check=True, cwd=given.work)
    record = found(json.loads((given.work / "out" / "dit-local" / "report.json").read_text()))
    record |= {"params": params, "asked": given.speedup, "shape": shape}
    leave(given.out, "time", record, packages=("torch", "diffusers", "onnxruntime"))
    print(f"asked {given.speedup:g}, delivered {record['delivered'][0]:.3f}")


def found(report: dict[str, Any]) -> dict[str, Any]:
    """Return what of a report stands in the record."""
    facts = report["passes"]["slimdiff"]
    return {
        "delivered": report["paints"]["step_ratio"], "timed": facts["timed"], "kept_share": facts["kept_share"],
        "cuttable_share_of_macs": sum(g["macs"] for g in facts["groups"]) / (facts["gmacs_before"] * 1e9),
        "params_after": facts["params_after"], "gmacs": [facts["gmacs_before"], facts["gmacs_after"]], "engine": report["chosen"],
    }  # fmt: skip


if __name__ == "__main__":
    main()
