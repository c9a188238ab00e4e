"""Slim a network without training: moments, decompositions, how much each group matters, and a budget spent on them.

The steps of SlimDiff (arXiv 2509.21498) for whatever can be sampled; each is kept, so that an interrupted run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.calibration import budgets
from edgekit.calibration.budgets import Unit
from edgekit.calibration.rewriting import Left, Site, Solved, cut, rewrite, rewriters, sites_of
from edgekit.calibration.second_moments import Kept, SecondMoments, Tap, in_groups
from edgekit.calibration.walks import Seen, Walk, answers_at, apart, evenly, walked
from edgekit.core.errors import RecipeError
from edgekit.core.files import write_json
from edgekit.core.watch import steps as watched
from edgekit.core.watch import watcher

Keep = Callable[[str, dict[str, Any], Callable[[Path], None]], Path]
# The spec's ablation: method of each rewriter.
METHODS = {
    "slimdiff": {"qk": "whitened", "vo": "attended", "ffn": "nystrom"},
    "modegpt": {"qk": "columns", "vo": "whitened", "ffn": "nystrom"},
    "plain": {"qk": "plain", "vo": "plain", "ffn": "magnitude"},
    "magnitude": {"qk": "magnitude", "vo": "magnitude", "ffn": "magnitude"},
}


@dataclass(frozen=True, kw_only=True)
class Slimming:
    """How a network is slimmed.

    Attributes:
        method: Key of `METHODS`.
        allocation: spectral, tail, uniform or influence.
        probe: trajectory, guided or plain: what a group's weight is measured by.
        record: Steps whose activations are summed.
        tokens: Tokens drawn of each picture and step.
        log_weights: Whether early, noisy steps count more.
        memory_mb: Of the sums at a time.
        round_ranks: Multiple of ranks; 0 takes 8 from heads of 32 on.
        round_neurons: Multiple of neurons; 0 takes 64 from 1,024 on, else 8.
        probed: Steps at which the probes "guided" and "plain" compare answers.
        seed: Of every draw.
    """

    method: str = "slimdiff"
    allocation: str = "spectral"
    probe: str = "trajectory"
    record: int = 10
    tokens: int = 256
    log_weights: bool = False
    memory_mb: float = 2000
    round_ranks: int = 0
    round_neurons: int = 0
    probed: int = 4
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Everything that is known before a budget is spent.

    Attributes:
        sites: Groups by name.
        left: Modules that stay, with the reason.
        solved: By name of the group.
        macs: Multiply-adds of one unit for one picture and step, by name.
        weights: How much the answer suffers from a group's error, by name.
        moments: Of the taps.
    """

    sites: Mapping[str, Site]
    left: tuple[Left, ...]
    solved: Mapping[str, Solved]
    macs: Mapping[str, float]
    weights: Mapping[str, float]
    moments: Kept

    def cost(self, kind: str) -> dict[str, float]:
        """Return what a unit of each group costs, in "params" or "macs"."""
        return dict(self.macs) if kind == "macs" else {n: float(s.params) for n, s in self.sites.items()}

    def total(self, kind: str) -> float:
        """Return what all that can be cut costs."""
        cost = self.cost(kind)
        return sum(s.size * cost[n] for n, s in self.sites.items())


def solution_of(
    network: Any, walk: Walk, probe: Walk, how: Slimming, *, keep: Keep, key: Mapping[str, Any]
) -> Solution:
    """Return the moments, decompositions and weights of a network.

    Args:
        network: In torch; it stays as it is.
        walk: What calibration samples.
        probe: What probes sample.
        how: Methods.
        keep: Gives the folder of a step that is kept.
        key: What decides the walks: digests of network, prompts, sampler.
    """
    sites, left = sites_of(network)
    methods = METHODS[how.method]
    found = moments_of(network, sites, walk, how, keep=keep, key=key)
    solved = {}
    for site in watched("decompositions", sites, len(sites)):
        solved[site.name] = _solved(
            network, site, methods[site.rewriter], found.moments, keep, {**key, "moments": found.key}
        )
    base = Solution(
        sites={s.name: s for s in sites}, left=tuple(left), solved=solved, macs=_macs(sites, found.rows),
        weights={s.name: 1.0 for s in sites}, moments=found.moments,
    )  # fmt: skip
    if how.allocation == "spectral":
        key = {**key, "moments": found.key, "method": how.method}
        return replace(base, weights=propagation(network, base, probe, how, keep=keep, key=key))
    if how.allocation == "influence":
        return replace(base, weights=influences(network, list(base.sites.values()), probe))
    return base


@dataclass(frozen=True, kw_only=True)
class _Moments:
    moments: Kept
    rows: Mapping[str, int]
    key: Any


def moments_of(
    network: Any, sites: Sequence[Site], walk: Walk, how: Slimming, *, keep: Keep, key: Mapping[str, Any]
) -> _Moments:
    """Return the second moments of every tap, in as many walks as their sums need memory for; each walk is kept.

    Raises:
        ContractError: A value is not finite.
    """
    taps: dict[str, Tap] = {}
    for site in sites:
        taps |= {
            t.name: t
            for t in rewriters()[site.rewriter].taps(network, site, METHODS[how.method][site.rewriter])
        }
    groups = in_groups(list(taps.values()), how.memory_mb)
    said = {"tokens": how.tokens, "record": how.record, "log": how.log_weights, "seed": how.seed}
    folders = []
    for k, group in enumerate(groups):
        name = f"moments, part {k + 1} of {len(groups)}" if len(groups) > 1 else "moments"
        inputs = {**key, **said, "taps": sorted(t.name for t in group)}

        def make(folder: Path, group: list[Tap] = group, name: str = name) -> None:
            watcher().phase(name)
            _sum(network, group, walk, how, name).save(folder)

        folders.append(keep("moments", inputs, make))
    rows: dict[str, int] = {}
    for folder in folders:
        rows |= json.loads((folder / "rows.json").read_text())
    return _Moments(moments=Kept(folders), rows=rows, key={**key, **said})


def _sum(network: Any, taps: Sequence[Tap], walk: Walk, how: Slimming, name: str) -> SecondMoments:
    sums = SecondMoments(taps, tokens=how.tokens, seed=how.seed)
    count = walk.schedule.steps
    record = evenly(how.record, count)

    def before(_: int, index: int) -> None:
        sums.next_call()
        early = 1 + np.log(count) - np.log(index + 1) if how.log_weights else 1.0
        sums.weight = float(early) if index in record else 0.0

    with sums.watching(network):
        walked(network, walk, before=before, name=name)
    return sums


def _solved(
    network: Any, site: Site, method: str, moments: Kept, keep: Keep, key: Mapping[str, Any]
) -> Solved:
    def make(folder: Path) -> None:
        found = rewriters()[site.rewriter].solve(network, site, moments, method)
        np.savez(folder / "solved.npz", sizes=found.sizes, errors=found.errors, **found.values)  # type: ignore[arg-type]

    folder = keep("slim-solved", {**key, "site": site.name, "method": method}, make)
    with np.load(folder / "solved.npz") as data:
        values = {n: data[n] for n in data.files if n not in {"sizes", "errors"}}
        return Solved(
            site=site, method=method, sizes=tuple(map(int, data["sizes"])), errors=tuple(map(float, data["errors"])),
            values=values,
        )  # fmt: skip


def _macs(sites: Sequence[Site], rows: Mapping[str, int]) -> dict[str, float]:
    """Return the multiply-adds of a unit for one picture and step."""
    found = {}
    for site in sites:
        left, context = rows[site.rows], rows[site.context] if site.context else 0
        found[site.name] = float(
            site.per_row * left + site.per_context * context + site.per_pair * left * context
        )
    return found


def propagation(
    network: Any, base: Solution, probe: Walk, how: Slimming, *, keep: Keep, key: Mapping[str, Any]
) -> dict[str, float]:
    """Return how much the probe's error grows with each group's own: the group alone is cut to half, nothing else."""
    error_of = _probe(network, probe, how)
    said = {
        "probe": how.probe, "pictures": list(probe.seeds), "steps": probe.schedule.steps, "guidance": probe.guidance,
        "probed": how.probed,
    }  # fmt: skip
    found = {}
    for name in watched("what each group matters", sorted(base.sites), len(base.sites)):
        solved = base.solved[name]
        half = max(solved.site.size // 2, 1)

        def make(folder: Path, solved: Solved = solved, half: int = half) -> None:
            with cut(network, [(solved, half)], base.moments):
                write_json(folder / "error.json", error_of())

        folder = keep("slim-probe", {**key, **said, "site": name, "size": half}, make)
        error = float(json.loads((folder / "error.json").read_text()))
        found[name] = error / max(solved.error(half), 1e-12)
    return found


def _probe(network: Any, probe: Walk, how: Slimming) -> Callable[[], float]:
    """Return what tells how far the network, as it is when asked, is from what it is now."""
    if how.probe == "trajectory":
        dense = walked(network, probe)
        return lambda: apart(walked(network, probe), dense)
    seen, strength = Seen(), 1.0 if how.probe == "plain" else probe.guidance
    # Latents of a walk are where the answers are compared.
    walked(network, probe, seen=seen, record=evenly(how.probed, probe.schedule.steps))
    wanted = answers_at(network, probe, seen, guidance=strength)
    return lambda: apart(answers_at(network, probe, seen, guidance=strength), wanted)


def influences(network: Any, sites: Sequence[Site], probe: Walk) -> dict[str, float]:
    """Return each group's block influence, 1 - cosine of what enters and leaves its block (MoDeGPT's score)."""
    import torch

    blocks = {s.name: s.module.rpartition(".")[0] for s in sites}
    sums = {b: [0.0, 0] for b in set(blocks.values())}

    def hook(path: str) -> Callable[..., None]:
        def heard(_: Any, given: Any, kwargs: Any, found: Any) -> None:
            x = given[0] if given else kwargs["hidden_states"]
            cosine = torch.nn.functional.cosine_similarity(x.flatten(0, -2), found.flatten(0, -2), dim=-1)
            sums[path][0] += float(1 - cosine.mean())
            sums[path][1] += 1

        return heard

    hooks = [network.get_submodule(b).register_forward_hook(hook(b), with_kwargs=True) for b in sums]
    try:
        walked(network, probe)
    finally:
        for one in hooks:
            one.remove()
    return {name: sums[block][0] / max(sums[block][1], 1) for name, block in blocks.items()}


def units_of(solution: Solution, how: Slimming, *, cost: str = "params") -> list[Unit]:
    """Return the groups as a budget sees them."""
    costs = solution.cost(cost)
    return [
        Unit(
            name=n, size=s.size, cost=costs[n], multiple=multiple_of(s, how), error=solution.solved[n].error,
            weight=solution.weights[n],
        )
        for n, s in solution.sites.items()
    ]  # fmt: skip


def multiple_of(site: Site, how: Slimming) -> int:
    """Return the multiple that a group's size is rounded to."""
    return (how.round_neurons if site.rewriter == "ffn" else how.round_ranks) or site.multiple


def spent(solution: Solution, how: Slimming, budget: float, *, cost: str = "params") -> dict[str, int]:
    """Return the units that every group keeps under a budget.

    Args:
        solution: Of the network.
        how: Methods.
        budget: What all groups may cost together.
        cost: "params" or "macs".

    Raises:
        RecipeError: The budget is below what groups keep at least.
    """
    units = units_of(solution, how, cost=cost)
    least = sum(u.least * u.cost for u in units)
    if budget < least:
        raise RecipeError(
            f"passes.slimdiff: {_share(budget, solution, cost)} of what can be cut would be left, every group keeps an eighth "
            f"({_share(least, solution, cost)})",
            hint="Ask for a smaller cut.",
        )
    if how.allocation == "uniform":
        return budgets.uniform(units, budget)
    if how.allocation == "influence":
        return budgets.by_score(units, budget, solution.weights)
    return budgets.spread(units, budget)


def _share(part: float, solution: Solution, cost: str) -> str:
    return f"{part / solution.total(cost):.3f}"


def slimmed(network: Any, solution: Solution, sizes: Mapping[str, int]) -> None:
    """Cut a network for good."""
    for name, size in sizes.items():
        rewrite(network, solution.solved[name], size, solution.moments)


def changes(solution: Solution, sizes: Mapping[str, int]) -> list[tuple[Solved, int]]:
    """Return what `cut` takes for these sizes."""
    return [(solution.solved[n], k) for n, k in sizes.items()]


def per_module(solution: Solution, sizes: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the sizes of what was cut, by module, as `slim.json` names them."""
    found: dict[str, dict[str, int]] = {}
    for name, size in sizes.items():
        site = solution.sites[name]
        if size < site.size:
            found.setdefault(site.module, {})[site.key] = size
    return found


def table(solution: Solution, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return a row for each kind of group: parameters before and after, and the share that is left."""
    rows: dict[str, dict[str, Any]] = {}
    for name, site in solution.sites.items():
        row = rows.setdefault(
            site.group,
            {"group": site.group, "sites": 0, "params": 0, "kept": 0, "macs": 0.0, "kept_macs": 0.0},
        )
        row["sites"] += 1
        row["params"] += site.size * site.params
        row["kept"] += sizes[name] * site.params
        row["macs"] += site.size * solution.macs[name]
        row["kept_macs"] += sizes[name] * solution.macs[name]
    return [{**r, "share": r["kept"] / r["params"]} for _, r in sorted(rows.items())]
