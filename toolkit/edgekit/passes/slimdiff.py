"""Cut ranks and neurons of a diffusion network that its pictures do not need, without training (SlimDiff)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.core.digest import digest_file, digest_value
from edgekit.core.errors import RecipeError
from edgekit.core.records import Graph, Network
from edgekit.core.versions import versions
from edgekit.core.watch import watcher
from edgekit.passes.protocol import Change, Context, Pass, Scene
from edgekit.plans.schedules import Schedule, check_schedule

FOLDER = "slim-network"
# What is kept where a recipe does not say: in our arms pictures are as good as before (docs/slimdiff.md).
_KEEP = 0.75
_OTHERS = ("remove_params", "mac_cut", "speedup")
# A measured latency ratio within this of the one asked for is found.
_NEAR = 0.03
_TRIES = 9


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of slimdiff: how much to cut, and how (arXiv 2509.21498).

    Attributes:
        keep: Share of the parameters in attention and feed-forward layers that stays; counts where none of the next three is given.
        remove_params: Parameters that go, such as 100_000_000, instead.
        mac_cut: Share of the network's multiply-adds that goes, instead.
        speedup: How many times faster a step shall be, measured on the device, instead.
        method: slimdiff; modegpt, plain (SVD of weights) and magnitude are there to compare with.
        allocation: spectral (errors times what each group matters), tail (errors alone), uniform, influence (MoDeGPT's).
        probe: What a group matters is measured by: trajectory (final pictures), guided or plain (one step's answer).
        prompts: That calibration runs on, picked from the recipe's to cover them all.
        steps: Of the sampler in calibration.
        record: Of these steps, how many are looked at.
        tokens: Of each picture and step, drawn at random; 0 takes all.
        weights: Of the steps: uniform, or log_decrease (noisy ones count more).
        probe_prompts: That probes run on.
        probe_steps: Of the sampler in probes; 0 takes the recipe's.
        batch: Pictures that run together.
        memory_mb: Of the sums at a time; more walks where they do not fit.
        round_ranks: Multiple of ranks; 0 takes 8 from heads of 32 on.
        round_neurons: Multiple of neurons; 0 takes 64 from 1,024 on, else 8.
    """

    keep: float = _KEEP
    remove_params: int = 0
    mac_cut: float = 0.0
    speedup: float = 0.0
    method: Literal["slimdiff", "modegpt", "plain", "magnitude"] = "slimdiff"
    allocation: Literal["spectral", "tail", "uniform", "influence"] = "spectral"
    probe: Literal["trajectory", "guided", "plain"] = "trajectory"
    prompts: int = 500
    steps: int = 25
    record: int = 10
    tokens: int = 256
    weights: Literal["uniform", "log_decrease"] = "uniform"
    probe_prompts: int = 6
    probe_steps: int = 0
    batch: int = 8
    memory_mb: int = 2000
    round_ranks: int = 0
    round_neurons: int = 0

    def __post_init__(self) -> None:
        given = [k for k in _OTHERS if getattr(self, k)]
        if len(given) > 1 or (given and self.keep != _KEEP):
            found = " and ".join([*(["keep"] if self.keep != _KEEP else []), *given])
            raise ValueError(f"give one of keep, remove_params, mac_cut and speedup, found {found}")
        if not 0 < self.keep < 1 or not 0 <= self.mac_cut < 1 or self.remove_params < 0:
            raise ValueError("keep and mac_cut should be shares below 1, remove_params 0 or more")
        if self.speedup and not 1 < self.speedup <= 20:
            raise ValueError("speedup should be more than 1, and at most 20")
        if min(self.prompts, self.steps, self.record, self.probe_prompts, self.batch, self.memory_mb) < 1:
            raise ValueError("prompts, steps, record, probe_prompts, batch and memory_mb should be 1 or more")
        if min(self.tokens, self.probe_steps, self.round_ranks, self.round_neurons) < 0:
            raise ValueError("tokens, probe_steps, round_ranks and round_neurons should be 0 or more")


class SlimDiff:
    """Replaces layers by smaller dense ones; the graph is an ordinary one afterwards."""

    works_on = "torch"
    settings = Settings
    needs_samples = False
    recodes = False
    summary = "cut ranks and neurons of a diffusion network without training (SlimDiff)"

    def run(self, network: Network, settings: Settings, context: Context) -> Change:
        """Calibrate on the recipe's prompts, spend the budget, and export the smaller network.

        Raises:
            RecipeError: There is no diffusion pipeline, or the budget cannot be had.
            ContractError: Activations are not finite.
        """
        if context.scene is None:
            raise RecipeError(
                "passes.slimdiff: the model is no diffusion pipeline",
                hint="Give model.pipeline, or leave the pass out.",
            )
        # torch is loaded by those who need it.
        from edgekit.calibration import slimming
        from edgekit.calibration.walks import quick_threads
        from edgekit.models.pipelines import load_network

        scene = context.scene
        module = load_network(scene.pipeline)
        how = slimming.Slimming(
            method=settings.method, allocation=settings.allocation, probe=settings.probe, record=settings.record,
            tokens=settings.tokens, log_weights=settings.weights == "log_decrease", memory_mb=settings.memory_mb,
            round_ranks=settings.round_ranks, round_neurons=settings.round_neurons, seed=scene.seed,
        )  # fmt: skip
        walks = _Walks(settings, scene)
        with quick_threads(module, walks.probe):
            solution = slimming.solution_of(
                module, walks.calibration, walks.probe, how, keep=context.step, key=walks.key
            )
        macs = scene.gflops / 2 * 1e9 / max(_batch(network), 1)
        if settings.speedup:
            sizes, timed = _in_time(network, module, solution, how, settings.speedup, context)
        else:
            budget, cost = _budget(solution, settings, macs)
            sizes, timed = slimming.spent(solution, how, budget, cost=cost), []
        facts = _facts(module, solution, sizes, settings, macs)
        with quick_threads(module, walks.probe):
            facts |= {"timed": timed, "slim_set": walks.chosen, **_errors(module, solution, sizes, walks)}
        slimming.slimmed(module, solution, sizes)
        made = _exported(module, network, context.out, scene)
        _save(module, context.out / FOLDER, facts, scene, settings)
        return Change(network=made, changed=True, facts=facts, lossy=True)


class _Walks:
    """The walks of one run: calibration, probes, and held-out pictures."""

    def __init__(self, settings: Settings, scene: Scene) -> None:
        from edgekit.calibration.walks import Walk

        states, blank = conditions(scene, scene.prompts)
        picked, scores = _picked(states, scene, settings.prompts)
        count = len(picked)
        short = check_schedule(
            scene.schedule,
            settings.probe_steps or scene.steps,
            scene.pipeline.noise,
            where="passes.slimdiff.probe_steps",
        )
        # Calibration is DDIM whatever samples later: it visits the same latents.
        long = check_schedule("ddim", settings.steps, scene.pipeline.noise, where="passes.slimdiff.steps")

        def walk(wanted: NDArray[Any], schedule: Schedule, first_seed: int) -> Walk:
            return Walk(
                pipeline=scene.pipeline, shape=scene.shape, wanted=wanted, blank=blank, schedule=schedule,
                guidance=scene.guidance, seeds=tuple(range(first_seed, first_seed + len(wanted))), batch=settings.batch,
            )  # fmt: skip

        base = scene.seed * 1_000_000
        self.calibration = walk(states[picked], long, base)
        self.probe = walk(states[picked[: settings.probe_prompts]], short, base + 100_000)
        held, _ = conditions(scene, scene.held_out)
        self.held_out = walk(held, replace(short, steps=scene.steps), base + 200_000)
        self.chosen = [
            {"prompt": scene.prompts[k], "score": round(s, 6)} for k, s in zip(picked, scores, strict=True)
        ]
        self.key = {
            "network": scene.pipeline.sha256, "prompts": digest_value([scene.prompts[k] for k in picked]), "count": count,
            "steps": settings.steps, "guidance": scene.guidance, "shape": scene.shape, "seed": base, "code": scene.code, "tools": versions("torch", "diffusers", "transformers"),
            "schedule": scene.schedule, "batch": settings.batch,
        }  # fmt: skip


def conditions(scene: Scene, prompts: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return what the network is told for prompts, (N, …), and for none, (1, …)."""
    from edgekit.frames.tokens import read_tokens
    from edgekit.models.pipelines import load_part, text_states
    from edgekit.plans.diffusion import class_of

    pipeline = scene.pipeline
    if pipeline.conditions == "class":
        wanted = np.array([class_of(pipeline.labels, p) for p in prompts], np.int64)
        return wanted, np.array([pipeline.blank], np.int64) if pipeline.blank >= 0 else None
    tokens = read_tokens(pipeline.folder / "tokenizer", length=pipeline.length, pad=pipeline.pad)
    encoder = load_part(pipeline, "text_encoder")
    ids = np.concatenate([tokens.encode(p) for p in (*prompts, "")])
    states = np.concatenate(
        [text_states(encoder, part) for part in np.array_split(ids, max(len(ids) // 64, 1))]
    )
    return states[:-1], states[-1:]


def _picked(states: NDArray[Any], scene: Scene, count: int) -> tuple[list[int], list[float]]:
    from edgekit.calibration.slim_set import slim_set

    if scene.pipeline.conditions == "class":
        return [k % len(states) for k in range(min(count, len(states)))], [1.0] * min(count, len(states))
    return slim_set(states.mean(1), count)


def _batch(network: Network) -> int:
    return network.contract.inputs[0].shape[0]


def _budget(solution: Any, settings: Settings, macs: float) -> tuple[float, str]:
    """Return what all groups may cost together, and in what."""
    total = solution.total("params")
    if settings.remove_params:
        return total - settings.remove_params, "params"
    if settings.mac_cut:
        return solution.total("macs") - settings.mac_cut * macs, "macs"
    return settings.keep * total, "params"


def _in_time(
    network: Network, module: Any, solution: Any, how: Any, speedup: float, context: Context
) -> tuple[dict[str, int], list[dict[str, float]]]:
    """Return the sizes with which a step is as many times faster as asked for, and what was measured on the way.

    Raises:
        RecipeError: The device is not measured here, or an eighth of every group is not fast enough.
    """
    from edgekit.calibration import slimming
    from edgekit.calibration.rewriting import cut

    if context.time is None or context.scene is None:
        raise RecipeError(
            "passes.slimdiff.speedup: latency is not measured for this device here",
            hint="Give keep, remove_params or mac_cut, or compile for a device that answers.",
        )
    total = solution.total("macs")
    timed: list[dict[str, float]] = []
    units = slimming.units_of(solution, how, cost="macs")
    share = sum(u.least * u.cost for u in units) / total
    low, high = (share, 0.0), (1.0, 1.0)
    fast: dict[str, int] = {}
    for k in range(_TRIES):
        watcher().phase(f"budget for {speedup:g} times as fast: {share:.3f} of the multiply-adds")
        sizes = slimming.spent(solution, how, share * total * (1 + 1e-9), cost="macs")
        with tempfile.TemporaryDirectory() as place:
            with cut(module, slimming.changes(solution, sizes), solution.moments):
                made = _exported(module, network, Path(place), context.scene)
            dense_ms, slim_ms = context.time([(network, None), (made, None)])
        ratio = dense_ms / slim_ms
        timed.append(
            {"share": round(share, 4), "dense_ms": dense_ms, "slim_ms": slim_ms, "ratio": round(ratio, 4)}
        )
        if k == 0 and ratio < speedup * (1 - _NEAR):
            raise RecipeError(
                f"passes.slimdiff.speedup: {speedup:g} cannot be had: with an eighth of every group left it is {ratio:.2f}",
                hint=f"Ask for at most {ratio:.2f}, or for a smaller picture or fewer steps.",
            )
        if abs(ratio / speedup - 1) <= _NEAR:
            return sizes, timed
        if ratio > speedup:
            low, fast = (share, 1 / ratio), sizes
        else:
            high = (share, 1 / ratio)
        share = _next_share(low, high, speedup)
    # A machine that is too restless to meet it: the largest that was fast enough.
    return fast, timed


def _next_share(low: tuple[float, float], high: tuple[float, float], speedup: float) -> float:
    """Return where the line between both ends of the bracket reaches the wanted time.

    Args:
        low: Share that is fast enough, and its time as a part of the dense network's.
        high: Share that is not, and the same.
        speedup: Wanted.
    """
    part = (1 / speedup - low[1]) / max(high[1] - low[1], 1e-9)
    return low[0] + float(np.clip(part, 0.1, 0.9)) * (high[0] - low[0])


def _exported(module: Any, network: Network, out: Path, scene: Scene) -> Network:
    from edgekit.export.diffusion_onnx import network_inputs, network_module, part_parity, write_part

    out.mkdir(parents=True, exist_ok=True)
    inputs = network_inputs(scene.pipeline, scene.shape, _batch(network))
    torch_module = network_module(module, scene.pipeline)
    path = out / "main.onnx"
    write_part(torch_module, inputs, network.contract.outputs[0].name, path, opset=scene.opset)
    part_parity(torch_module, str(path), inputs, where="the slimmed network")
    return replace(network, graphs={**network.graphs, "main": Graph(path=path, sha256=digest_file(path))})


def _facts(
    module: Any, solution: Any, sizes: Mapping[str, int], settings: Settings, macs: float
) -> dict[str, Any]:
    from edgekit.calibration import slimming

    rows = slimming.table(solution, sizes)
    params = sum(p.numel() for p in module.parameters())
    removed = sum(r["params"] - r["kept"] for r in rows)
    gone = sum(r["macs"] - r["kept_macs"] for r in rows)
    return {
        "params_before": params, "params_after": params - removed, "params_removed": removed,
        "cuttable": sum(r["params"] for r in rows), "kept_share": sum(r["kept"] for r in rows) / sum(r["params"] for r in rows),
        "gmacs_before": macs / 1e9, "gmacs_after": (macs - gone) / 1e9, "groups": rows,
        "left_alone": [{"module": one.module, "why": one.why} for one in solution.left],
        "per_module": slimming.per_module(solution, sizes), "weights": dict(solution.weights),
        "method": settings.method, "allocation": settings.allocation, "probe": settings.probe,
    }  # fmt: skip


def _errors(module: Any, solution: Any, sizes: Mapping[str, int], walks: _Walks) -> dict[str, Any]:
    """Return how far the slimmed network is from the dense one on held-out prompts and seeds, in torch."""
    from edgekit.calibration import slimming
    from edgekit.calibration.rewriting import cut
    from edgekit.calibration.walks import Seen, answers_at, apart, evenly, walked

    if not walks.held_out.seeds:
        return {}
    walk, seen = walks.held_out, Seen()
    watcher().phase("held-out prompts")
    dense = walked(module, walk, seen=seen, record=evenly(4, walk.schedule.steps))
    wanted = {g: answers_at(module, walk, seen, guidance=g) for g in (1.0, walk.guidance)}
    with cut(module, slimming.changes(solution, sizes), solution.moments):
        found = {g: answers_at(module, walk, seen, guidance=g) for g in wanted}
        final = walked(module, walk)
    return {
        "step_error": apart(found[1.0], wanted[1.0]), "guided_error": apart(found[walk.guidance], wanted[walk.guidance]),
        "latent_error": apart(final, dense), "held_out": len(walk.seeds),
    }  # fmt: skip


def _save(module: Any, folder: Path, facts: Mapping[str, Any], scene: Scene, settings: Settings) -> None:
    from edgekit.models.slim_network import FILE, save_slim

    own = scene.pipeline.folder / scene.pipeline.network / FILE
    before = json.loads(own.read_text())["per_module"] if own.exists() else {}
    modules = {
        m: {**before.get(m, {}), **facts["per_module"].get(m, {})} for m in {**before, **facts["per_module"]}
    }
    said = {
        "base": scene.pipeline.what, "base_sha256": scene.pipeline.sha256, "per_module": modules,
        "kept_params": facts["params_after"], "removed_params": facts["params_removed"],
        "budget": {k: getattr(settings, k) for k in _OTHERS if getattr(settings, k)} or {"keep": settings.keep},
        "prompts_sha256": digest_value([p["prompt"] for p in facts["slim_set"]]), "sampler": "ddim", "steps": settings.steps,
        "w_t": settings.weights, "probe": settings.probe, "method": settings.method, "allocation": settings.allocation,
    }  # fmt: skip
    save_slim(module, folder, facts=said, half=True)


PLUGIN: Pass = SlimDiff()
