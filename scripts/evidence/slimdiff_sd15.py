"""Slim a network of Stable Diffusion 1.5's configuration with random weights on this machine, end to end, and time its steps.

    python scripts/evidence/slimdiff_sd15.py --work /somewhere       # about 45 minutes on 2 cores; goes on where it was killed
    python scripts/evidence/slimdiff_sd15.py --slice --work …        # a small one, for CI

8 prompts, 4 steps with guidance at 256 pixels, moments in walks of at most 500 MB of sums, the plain probe on one prompt; then 100 M parameters
fewer, and a quarter kept. Each graph is exported at 512 pixels and its step timed by onnxruntime and OpenVINO, one process a graph, alternating.
Random weights say nothing of pictures; sizes, times and memory are those of real ones. Leaves docs/evidence/slimdiff/sd15-DATE.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from where import leave

from edgekit.calibration import slimming
from edgekit.calibration.rewriting import cut
from edgekit.calibration.walks import Walk
from edgekit.core import versions
from edgekit.core.cache import StepCache
from edgekit.export.diffusion_onnx import network_inputs, network_module
from edgekit.models.pipelines import Pipeline
from edgekit.plans.schedules import Noise, Schedule

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "slimdiff"
SD15 = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), "cross_attention_dim": 768, "attention_head_dim": 8,
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
SMALL = SD15 | {
    "layers_per_block": 1,
    "block_out_channels": (32, 64, 64, 64),
    "sample_size": 16,
    "norm_num_groups": 8,
    "cross_attention_dim": 48,
}
ENGINES = ("onnxruntime", "openvino")


def network_of(config: dict[str, Any]) -> Any:
    """Return the network with random weights, always the same."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**config).eval().requires_grad_(requires_grad=False)


def walks_of(config: dict[str, Any], width: int) -> tuple[Pipeline, Walk, Walk]:
    """Return the pipeline's facts, and what calibration and probe sample; text states are random, 77 tokens."""
    noise = Noise(beta_start=0.00085, beta_end=0.012, betas="scaled_linear", offset=1, last_alpha_one=False)
    pipeline = Pipeline(
        what="sd15-random", folder=Path(), network="unet", kind="UNet2DConditionModel", conditions="text", latents=4,
        side=config["sample_size"], factor=8, noise=noise, length=77, width=width,
    )  # fmt: skip
    states = np.random.default_rng(0).standard_normal((9, 77, width), np.float32)
    # Calibration and probes run at half of the side: the same layers, a quarter of the tokens.
    shape = (4, config["sample_size"] // 2, config["sample_size"] // 2)
    more = {
        "pipeline": pipeline,
        "shape": shape,
        "blank": states[8:],
        "schedule": Schedule(kind="ddim", steps=4, noise=noise),
        "guidance": 7.5,
        "batch": 1,
    }
    return (
        pipeline,
        Walk(wanted=states[:8], seeds=tuple(range(8)), **more),
        Walk(wanted=states[:1], seeds=(100,), **more),
    )


def export(network: Any, pipeline: Pipeline, shape: tuple[int, ...], folder: Path) -> Path:
    """Write the step of one latent as ONNX, weights beside it."""
    import warnings

    import torch

    folder.mkdir(parents=True, exist_ok=True)
    inputs = network_inputs(pipeline, shape, 1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network_module(network, pipeline), tuple(inputs.values()), str(folder / "main.onnx"), opset_version=17, dynamo=False,
            input_names=list(inputs), output_names=["answer"], do_constant_folding=False,
        )  # fmt: skip
    np.savez(folder / "inputs.npz", **{k: v.numpy() for k, v in inputs.items()})
    return folder / "main.onnx"


def stepper(path: Path, engine: str, threads: int) -> None:
    """Time steps of one graph: one a line that comes in."""
    with np.load(path.parent / "inputs.npz") as data:
        inputs = dict(data)
    if engine == "onnxruntime":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        run = lambda: session.run(None, inputs)[0]  # noqa: E731
    else:
        import openvino as ov

        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = ov.Core().compile_model(str(path), "CPU", settings)
        run = lambda: compiled(inputs)[0]  # noqa: E731
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        answer = run()
        print(json.dumps({"s": time.perf_counter() - begun, "sum": float(np.abs(answer).sum())}), flush=True)
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)


def timed(graphs: dict[str, Path], engine: str, *, rounds: int, threads: int) -> dict[str, Any]:
    """Return seconds of single steps of each graph, alternating, and peak memory of each process."""
    words = [sys.executable, __file__, "--step", engine, "--threads", str(threads)]
    children = {}
    for name, path in graphs.items():
        children[name] = subprocess.Popen(
            [*words, "--graph", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert children[name].stdout.readline() == "ready\n", f"{engine} does not run {name}"
    seconds: dict[str, list[float]] = {n: [] for n in graphs}
    for k in range(rounds):
        for name in sorted(graphs, key=lambda n: hash((k, n))):
            children[name].stdin.write("go\n")
            children[name].stdin.flush()
            seconds[name].append(json.loads(children[name].stdout.readline())["s"])
    peaks = {}
    for name, child in children.items():
        child.stdin.close()
        peaks[name] = json.loads(child.stdout.readline())["peak_mb"]
        child.wait()
    dense = float(np.median(seconds["dense"]))
    return {
        "seconds": seconds, "median_s": {n: float(np.median(v)) for n, v in seconds.items()}, "peak_mb": peaks,
        "times_as_fast": {n: dense / float(np.median(v)) for n, v in seconds.items()},
    }  # fmt: skip


class Phases:
    """What took how long."""

    def __init__(self) -> None:
        self.minutes: dict[str, float] = {}
        self.begun = self._since = time.perf_counter()

    def done(self, name: str) -> None:
        """Note and print that a phase ended."""
        now = time.perf_counter()
        self.minutes[name], self._since = round((now - self._since) / 60, 2), now
        print(f"{name}: {self.minutes[name]} min, peak {peak_gb():.1f} GB", flush=True)


def peak_gb() -> float:
    """Return the most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def slimmed(
    config: dict[str, Any], width: int, given: argparse.Namespace, phases: Phases
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Return the graphs of the network as it came and slimmed to both budgets, and what was cut."""
    network = network_of(config)
    pipeline, walk, probe = walks_of(config, width)
    how = slimming.Slimming(probe="plain", probed=1, record=4, memory_mb=0.5 if given.slice else 500)
    key = {"network": f"random {config}", "code": versions.code()}
    solution = slimming.solution_of(network, walk, probe, how, keep=StepCache(root=given.work).step, key=key)
    phases.done("moments, decompositions, probes")
    total, params = solution.total("params"), sum(p.numel() for p in network.parameters())
    timed_at = (4, config["sample_size"], config["sample_size"])
    graphs, arms = {"dense": export(network, pipeline, timed_at, given.work / "dense")}, {}
    for name, removed in (("100M fewer", min(100e6, 0.413 * total)), ("keep 0.25", 0.75 * total)):
        sizes = slimming.spent(solution, how, total - removed)
        gone = sum((s.size - sizes[n]) * s.params for n, s in solution.sites.items())
        with cut(network, slimming.changes(solution, sizes), solution.moments):
            left = sum(p.numel() for p in network.parameters())
            graphs[name] = export(network, pipeline, timed_at, given.work / name.replace(" ", "-"))
        arms[name] = {
            "asked": removed, "removed": gone, "params": left, "groups": slimming.table(solution, sizes),
            "file_mb": sum(p.stat().st_size for p in graphs[name].parent.iterdir() if p.suffix != ".npz") / 1e6,
        }  # fmt: skip
        assert params - left == gone
    phases.done("cuts and exports")
    return graphs, {"params": params, "cuttable": total, "arms": arms}


def main() -> None:
    """Run what is not there yet, and write it all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path)
    parser.add_argument("--slice", action="store_true")
    parser.add_argument("--out", type=Path, default=KEPT)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--step", choices=ENGINES)
    parser.add_argument("--graph", type=Path)
    given = parser.parse_args()
    if given.step:
        stepper(given.graph, given.step, given.threads)
        return
    config, width = (SMALL, 48) if given.slice else (SD15, 768)
    phases = Phases()
    graphs, record = slimmed(config, width, given, phases)
    peak = peak_gb()
    steps = {e: timed(graphs, e, rounds=given.rounds, threads=given.threads) for e in ENGINES}
    phases.done("timing")
    minutes = round((time.perf_counter() - phases.begun) / 60, 1)
    record |= {
        "steps": steps,
        "phases_min": phases.minutes,
        "minutes": minutes,
        "peak_gb": peak,
        "rounds": given.rounds,
    }
    leave(given.out, "sd15", record, packages=("torch", "diffusers", "onnxruntime", "openvino", "numpy"))
    print(json.dumps({e: s["times_as_fast"] for e, s in steps.items()}, indent=1))


if __name__ == "__main__":
    main()
