"""Paint the same pictures with an edgekit bundle and with its peers, one process each, alternating.

    python scripts/bench/vs_diffusers.py out/glyphs-local/bundle --peer-python /env/with/optimum/bin/python

Contenders: every variant of the bundle; diffusers' own loop on the pipeline as it came; optimum's onnxruntime pipeline of it where
an environment with optimum is given. Each paints one prompt at a time from the same latents. Seconds a picture are medians of
alternating rounds; memory is the process's peak. Leaves docs/evidence/vs_diffusers-DATE.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
PROMPTS = [
    "a red three on black",
    "a seven in blue on a white page",
    "the digit five in green on white",
    "orange nine on black",
]
STEPS, GUIDANCE, SIDE = 15, 3.0, 32


def painter(kind: str, where: str, folder: str):
    """Return a function that paints one prompt from latents, (1, 4, 8, 8), as pixels (H, W, 3) from 0 to 1."""
    if kind == "edgekit":
        import edgekit.runtime

        bundle, _, variant = where.rpartition("::")
        model = edgekit.runtime.load(bundle, variant=variant)
        return lambda prompt, x: (
            model.generate(prompt, latents=x, steps=STEPS, guidance=GUIDANCE).images[0] / 255
        )
    import torch

    if kind == "diffusers":
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(
            folder, torch_dtype=torch.float32, safety_checker=None, low_cpu_mem_usage=False
        )
    else:
        from optimum.onnxruntime import ORTStableDiffusionPipeline

        pipe = ORTStableDiffusionPipeline.from_pretrained(where)
    pipe.set_progress_bar_config(disable=True)
    words = {
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "output_type": "np",
        "height": SIDE,
        "width": SIDE,
    }
    return lambda prompt, x: pipe(prompt, latents=torch.from_numpy(x), **words).images[0]


def contender(kind: str, where: str, folder: str) -> None:
    """Paint one prompt a line that comes in."""
    # Libraries may print; what is read on the other side is ours alone.
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    begun = time.perf_counter()
    paint = painter(kind, where, folder)
    noise = np.random.default_rng(0).standard_normal((len(PROMPTS), 1, 4, 8, 8)).astype(np.float32)
    paint(PROMPTS[0], noise[0])
    print(json.dumps({"ready_s": time.perf_counter() - begun}), file=said, flush=True)
    for line in sys.stdin:
        k = int(line) % len(PROMPTS)
        at = time.perf_counter()
        image = paint(PROMPTS[k], noise[k])
        spent = time.perf_counter() - at
        print(
            json.dumps(
                {
                    "s": spent,
                    "mean": float(image.mean()),
                    "image": np.asarray(image, np.float32).ravel()[::7].tolist(),
                }
            ),
            file=said,
            flush=True,
        )
    print(
        json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}),
        file=said,
        flush=True,
    )


def rounds(words: dict[str, list[str]], count: int) -> dict[str, Any]:
    """Return what every contender took, alternating in shuffled order, and how far its pictures are from diffusers'."""
    rows: dict[str, Any] = {}
    children = {
        n: subprocess.Popen(w, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n, w in words.items()
    }
    for name, child in children.items():
        rows[name] = {"ready_s": json.loads(child.stdout.readline())["ready_s"], "s": [], "images": {}}
    order = np.random.default_rng(0)
    for k in range(count):
        for name in order.permutation(list(children)):
            children[name].stdin.write(f"{k}\n")
            children[name].stdin.flush()
            said = json.loads(children[name].stdout.readline())
            rows[name]["s"].append(said["s"])
            rows[name]["images"][k % len(PROMPTS)] = said["image"]
    for name, child in children.items():
        child.stdin.close()
        rows[name]["peak_mb"] = json.loads(child.stdout.readline())["peak_mb"]
        child.wait()
    theirs, seconds = rows["diffusers"]["images"], np.array(rows["diffusers"]["s"])
    for row in rows.values():
        images = row.pop("images")
        row["apart"] = float(max(np.abs(np.array(images[k]) - np.array(theirs[k])).max() for k in images))
        row["median_s"] = float(np.median(row["s"]))
        row["times_as_fast_as_diffusers"] = float(np.median(seconds / np.array(row["s"])))
    return rows


def main() -> None:
    """Hold the rounds, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--peer-model", default="", help="folder that optimum-cli exported")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evidence")
    parser.add_argument("--contender", nargs=3)
    given = parser.parse_args()
    if given.contender:
        contender(*given.contender)
        return
    from edgekit.bundle.read import open_bundle
    from edgekit.models.pipelines import shipped_pipelines

    sys.path.insert(0, str(ROOT / "scripts" / "evidence"))
    from where import leave

    folder = str(shipped_pipelines()["glyphs-ldm"])
    with open_bundle(given.bundle) as bundle:
        variants = [v.name for v in bundle.manifest.variants]
    own = [sys.executable, __file__, "--contender"]
    words = {f"edgekit {v}": [*own, "edgekit", f"{given.bundle}::{v}", folder] for v in variants}
    words["diffusers"] = [*own, "diffusers", folder, folder]
    if given.peer_python:
        words["optimum onnxruntime"] = [given.peer_python, *own[1:], "optimum", given.peer_model, folder]
    rows = rounds(words, given.rounds)
    record = {"rows": rows, "rounds": given.rounds, "steps": STEPS, "guidance": GUIDANCE}
    leave(given.out, "vs_diffusers", record, packages=("torch", "diffusers", "onnxruntime", "openvino"))
    for name, row in rows.items():
        ratio = row["times_as_fast_as_diffusers"]
        print(
            f"{name}: {1000 * row['median_s']:.1f} ms, {ratio:.2f} x, {row['peak_mb']:.0f} MB, apart {row['apart']:.4f}"
        )


if __name__ == "__main__":
    main()
