"""Measure SlimDiff against what it is compared with, on the shipped pipeline: errors, and what the judge sees.

    python scripts/evidence/slimdiff.py --work /somewhere            # all arms; a killed run goes on with the next arm
    python scripts/evidence/slimdiff.py --work /somewhere --slice    # two arms of few pictures, for CI

Every arm: one-step error (the network's answer without guidance at latents of the dense walk), error of the final latents
against the dense pipeline from the same noise, and the share of pictures in which the judge sees the digit that was asked for.
Leaves docs/evidence/slimdiff/glyphs-DATE.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from where import leave

from edgekit.calibration import slimming
from edgekit.calibration.rewriting import cut
from edgekit.calibration.slim_set import slim_set
from edgekit.calibration.walks import Seen, Walk, answers_at, apart, evenly, quick_threads, walked
from edgekit.core import versions
from edgekit.core.cache import StepCache
from edgekit.export.diffusion_onnx import decoder_module
from edgekit.jobs.painted import judge_session, label_of
from edgekit.models.pipelines import load_network, load_part, read_pipeline, shipped_pipelines
from edgekit.passes.protocol import Scene
from edgekit.passes.slimdiff import conditions
from edgekit.plans.schedules import Schedule

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "slimdiff"
KEEPS = (0.75, 0.587, 0.4)
# Method and allocation of each arm.
ARMS = {
    "magnitude": ("magnitude", "uniform"), "plain": ("plain", "uniform"), "modegpt": ("modegpt", "uniform"),
    "uniform": ("slimdiff", "uniform"), "slimdiff": ("slimdiff", "spectral"),
}  # fmt: skip
STEPS, GUIDANCE = 10, 3.0


class Stage:
    """The shipped pipeline, ready to be sampled."""

    def __init__(self, pictures: int, seeds: int) -> None:
        folder = shipped_pipelines()["glyphs-ldm"]
        self.pipeline, self.pictures, self.seeds = read_pipeline(folder), pictures, seeds
        self.network = load_network(self.pipeline)
        self.decoder = decoder_module(load_part(self.pipeline, "vae"))
        self.names, self.judge = judge_session(folder / "judge.onnx")
        lines = (folder / "prompts.txt").read_text().splitlines()
        prompts = [p for p in lines if p and not p.startswith("#")]
        held = prompts[::5]
        self.pool = [p for p in prompts if p not in set(held)]
        scene = Scene(
            pipeline=self.pipeline, shape=(4, 8, 8), prompts=tuple(self.pool), held_out=tuple(held), schedule="ddim", steps=STEPS,
            guidance=GUIDANCE,
        )  # fmt: skip
        states, blank = conditions(scene, self.pool)
        picked, _ = slim_set(states.mean(1), 60)
        base = Walk(
            pipeline=self.pipeline, shape=(4, 8, 8), wanted=states[picked], blank=blank, guidance=GUIDANCE, batch=30,
            schedule=Schedule(kind="ddim", steps=STEPS, noise=self.pipeline.noise), seeds=tuple(range(60)),
        )  # fmt: skip
        self.calibration = base
        self.probe = replace(base, wanted=states[picked[:6]], seeds=tuple(range(100_000, 100_006)))
        held_states, _ = conditions(scene, held)
        self.step = replace(
            base, wanted=held_states, seeds=tuple(range(200_000, 200_000 + len(held))), batch=64
        )
        which = [k % len(held) for k in range(pictures)]
        self.labels = np.array([label_of(held[k], self.names) for k in which])
        self.walks = [
            replace(base, wanted=held_states[which], seeds=tuple(range(s * 1_000_000 + 300_000, s * 1_000_000 + 300_000 + pictures)), batch=100)
            for s in range(seeds)
        ]  # fmt: skip

    def right(self, latents: np.ndarray) -> float:
        """Return the share of pictures in which the judge sees the digit."""
        import torch

        name, seen = self.judge.get_inputs()[0].name, []
        with torch.inference_mode():
            for part in np.array_split(latents, max(len(latents) // 100, 1)):
                for pixels in self.decoder(torch.from_numpy(part)).numpy():
                    shown = (np.rint(pixels[None] * 255) / 255).astype(np.float32)
                    seen.append(int(self.judge.run(None, {name: shown})[0].argmax()))
        return float((np.array(seen) == self.labels).mean())


def arm(
    stage: Stage, dense: dict[str, Any], how: slimming.Slimming, keep: float, cache: StepCache
) -> dict[str, Any]:
    """Return what an arm gives."""
    key = {"network": stage.pipeline.sha256, "code": versions.code(), "evidence": "glyphs"}
    solution = slimming.solution_of(
        stage.network, stage.calibration, stage.probe, how, keep=cache.step, key=key
    )
    sizes = slimming.spent(solution, how, keep * solution.total("params"))
    rows = slimming.table(solution, sizes)
    with cut(stage.network, slimming.changes(solution, sizes), solution.moments):
        step = apart(answers_at(stage.network, stage.step, dense["seen"], guidance=1.0), dense["answers"])
        finals = [walked(stage.network, w) for w in stage.walks]
    return {
        "step_error": step, "latent_error": [apart(f, d) for f, d in zip(finals, dense["finals"], strict=True)],
        "right": [stage.right(f) for f in finals], "kept": sum(r["kept"] for r in rows) / sum(r["params"] for r in rows),
        "shares": {r["group"]: r["share"] for r in rows},
        "params": sum(p.numel() for p in stage.network.parameters()) - sum(r["params"] - r["kept"] for r in rows),
    }  # fmt: skip


def every_arm(
    stage: Stage, keeps: tuple[float, ...], arms: tuple[str, ...], cache: StepCache
) -> dict[str, Any]:
    """Return what every arm gives, by name and share; each is kept."""
    seen = Seen()
    walked(stage.network, stage.step, seen=seen, record=evenly(6, STEPS))
    dense = {"seen": seen, "answers": answers_at(stage.network, stage.step, seen, guidance=1.0)}
    dense["finals"] = [walked(stage.network, w) for w in stage.walks]
    params = sum(p.numel() for p in stage.network.parameters())
    found: dict[str, Any] = {"dense": {"right": [stage.right(f) for f in dense["finals"]], "params": params}}
    for keep, name in itertools.product(keeps, arms):
        method, allocation = ARMS[name]
        how = slimming.Slimming(method=method, allocation=allocation, round_ranks=1, round_neurons=8)

        def make(folder: Path, how: slimming.Slimming = how, keep: float = keep) -> None:
            (folder / "arm.json").write_text(json.dumps(arm(stage, dense, how, keep, cache)))

        inputs = {
            "arm": name, "keep": keep, "pictures": stage.pictures, "seeds": stage.seeds, "code": versions.code(),
            "net": stage.pipeline.sha256,
        }  # fmt: skip
        one = json.loads((cache.step("evidence-arm", inputs, make) / "arm.json").read_text())
        found[f"{name} {keep:g}"] = one
        right = np.mean(one["right"])
        print(
            f"{name} {keep:g}: step {one['step_error']:.2g}, latents {np.mean(one['latent_error']):.2g}, right {right:.4f}",
            flush=True,
        )
    return found


def main() -> None:
    """Run every arm that is not there yet, and write them all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=340, help="a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--slice", action="store_true")
    parser.add_argument("--out", type=Path, default=KEPT)
    given = parser.parse_args()
    pictures, seeds = (40, 1) if given.slice else (given.pictures, given.seeds)
    keeps, arms = ((0.587,), ("magnitude", "uniform")) if given.slice else (KEEPS, tuple(ARMS))
    stage, begun = Stage(pictures, seeds), time.perf_counter()
    with quick_threads(stage.network, stage.walks[0]):
        found = every_arm(stage, keeps, arms, StepCache(root=given.work))
    record = {
        "arms": found, "pictures": pictures, "seeds": seeds, "steps": STEPS, "guidance": GUIDANCE, "calibration_prompts": 60,
        "minutes": round((time.perf_counter() - begun) / 60, 1),
    }  # fmt: skip
    leave(given.out, "glyphs", record, packages=("torch", "diffusers", "numpy"))


if __name__ == "__main__":
    main()
