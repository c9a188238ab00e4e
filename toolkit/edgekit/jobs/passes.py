"""Run a recipe's passes in order, each kept in the cache, and hold them to their contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core import versions
from edgekit.core.digest import digest_file, digest_value
from edgekit.core.errors import ContractError, RecipeError
from edgekit.core.plugins import pick
from edgekit.core.records import Contract, Graph, Network
from edgekit.core.watch import steps, watcher
from edgekit.data.sample import Sample
from edgekit.forms.stored import restore, store
from edgekit.frames.coded import read_frame
from edgekit.frames.prepare import prepare
from edgekit.graph.onnx_file import inputs_of, outputs_of, read_onnx
from edgekit.jobs.accuracy import judged, metric_of
from edgekit.jobs.ask import Ask
from edgekit.jobs.data import Data, timing_frames
from edgekit.jobs.model import placed
from edgekit.jobs.trial import machine_key
from edgekit.jobs.variants import Lowered, Networks, Wanted, int8_styles, lowered_from, wanted_for
from edgekit.measure.contest import contest
from edgekit.measure.inputs import random_inputs
from edgekit.measure.percentiles import median
from edgekit.passes.protocol import Candidate, Change, Context, Grown, Scene
from edgekit.recipe.check import Step

Inputs = dict[str, NDArray[Any]]
Record = Callable[[Network], Iterable[Inputs]]
_TIMED_RUNS = 64


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What a pass may be given beside the network."""

    grown: Grown | None = None
    scene: Scene | None = None
    recorded: Record | None = None


def run_passes(
    ask: Ask, network: Network, data: Data | None, *, coding: Mapping[str, Any] | None = None,
    grown: Grown | None = None, scene: Scene | None = None, recorded: Record | None = None,
) -> Networks:  # fmt: skip
    """Return the networks after the recipe's passes, with what each pass found.

    Args:
        ask: The compile.
        network: As it was loaded.
        data: Of the recipe.
        coding: What was learned of the sensor with the weights.
        grown: A student that was trained to lead to the network.
        scene: What a diffusion pipeline is asked for.
        recorded: Gives what the network of such a pipeline takes while it makes pictures.

    Raises:
        ContractError: A pass broke its contract.
        RecipeError: A pass cannot work on this network.
    """
    done = Networks(float32=network)
    for step in ask.checked.steps:
        change, folder = _step(
            ask, step, done, data, coding, _Given(grown=grown, scene=scene, recorded=recorded)
        )
        facts = {**done.facts, step.name: {**change.facts, "changed": change.changed}}
        _refuse_stale_plan(ask, step, done, change)
        half = change.network if change.network.source.get("precision") == "fp16" else None
        done = Networks(
            float32=done.float32 if half else change.network,
            half=half or done.half,
            plan=change.plan or done.plan,
            dense=done.dense or (done.float32 if change.lossy else None),
            facts=facts,
            folders={**done.folders, step.name: folder},
        )
    return done


def _refuse_stale_plan(ask: Ask, step: Step, done: Networks, change: Change) -> None:
    """Refuse a graph that changed under a plan: the plan speaks of the old layers."""
    same = change.network.main.sha256 == done.float32.main.sha256
    if done.plan and change.plan is None and not same and change.network.source.get("precision") != "fp16":
        raise RecipeError(
            f"{ask.checked.path}: passes.{step.name}: changes the graph that quantize-int8 has planned",
            hint=f"Put {step.name} before quantize-int8.",
        )


def _step(
    ask: Ask, step: Step, done: Networks, data: Data | None, coding: Mapping[str, Any] | None, given: _Given
) -> tuple[Change, Path]:  # fmt: skip
    one = pick("passes", step.name, what="pass")
    network = done.half or done.float32

    def make(folder: Path) -> None:
        watcher().phase(step.name)
        in_torch = one.recodes or one.works_on == "torch"
        context = (
            _torch_context(ask, folder, network, data, coding, given)
            if in_torch
            else _context(ask, folder, network, data, given)
        )
        change = one.run(network, step.settings, context)
        _check_contract(step.name, network, change, recodes=one.recodes)
        graphs = {n: replace(g, path=Path(g.path.name)) for n, g in change.network.graphs.items()}
        for name, graph in change.network.graphs.items():
            if not (folder / graph.path.name).exists():
                (folder / graph.path.name).write_bytes(graph.path.read_bytes())
                graphs[name] = Graph(path=Path(graph.path.name), sha256=graph.sha256)
        store(folder / "change.json", replace(change, network=replace(change.network, graphs=graphs)))

    folder = ask.cache.step("pass", _key(ask, step, done, data, coding, given), make)
    change = restore(folder / "change.json", Change)
    return replace(change, network=placed(change.network, folder)), folder


def _key(
    ask: Ask, step: Step, done: Networks, data: Data | None, coding: Mapping[str, Any] | None, given: _Given
) -> dict[str, Any]:  # fmt: skip
    """Return everything that decides what a pass makes."""
    one, network = pick("passes", step.name, what="pass"), done.half or done.float32
    inputs: dict[str, Any] = {
        "pass": step.name, "settings": step.settings, "graphs": {n: g.sha256 for n, g in network.graphs.items()},
        "contract": network.contract, "plan": done.plan, "code": versions.code(),
        "tools": versions.versions("onnx", "onnxruntime", "openvino", "onnxslim", "numpy"),
    }  # fmt: skip
    if one.works_on == "torch":
        inputs["grown"] = grown_key(given.grown)
    if given.scene:
        inputs["scene"] = scene_key(given.scene)
        if getattr(step.settings, "speedup", 0):
            inputs["machine"] = machine_key(ask)
    if one.recodes:
        inputs["coding"], inputs["sensor"] = coding, data.sensor if data else None
    if one.needs_samples:
        part = ask.checked.recipe.data
        inputs["calibration"] = data.calibration_digest if data else f"random {part.seed} {part.samples}"
        inputs["random"], inputs["here"] = part.allow_random, _prices_here(ask)
        # The guard's accuracy depends on metric and CPU, its prices on the machine.
        inputs["metric"], inputs["machine"] = metric_of(ask, data) if data else "", machine_key(ask)
        inputs["guard"] = data.guard_digest if data else ""
        inputs["judge"] = judge_of(ask)
    return inputs


def _torch_context(
    ask: Ask, folder: Path, network: Network, data: Data | None, coding: Mapping[str, Any] | None, given: _Given
) -> Context:  # fmt: skip
    return Context(
        out=folder, sensor=data.sensor if data else None, coding=coding, grown=given.grown, opset=ask.checked.recipe.export.opset,
        scene=given.scene, step=ask.cache.step,
        time=_timer(ask, network, None) if given.scene and _prices_here(ask) else None,
    )  # fmt: skip


def scene_key(scene: Scene) -> Any:
    """Return what a pipeline is asked for, for the cache."""
    return {**vars(scene), "pipeline": scene.pipeline.sha256}


def grown_key(grown: Grown | None) -> Any:
    """Return what a trained pair is, for the cache."""
    if grown is None:
        return None
    nets = [
        {**vars(s), "path": "", "settings": {**s.settings, "weights": ""}}
        for s in (grown.teacher, grown.student)
    ]
    return [nets, digest_file(grown.weights), list(grown.accuracy)]


def _prices_here(ask: Ask) -> bool:
    """Whether a layer's price can be measured: an engine that takes minutes to build is not asked for each."""
    return ask.here and not ask.board and not ask.profile.builds_engines


def _check_contract(name: str, before: Network, change: Change, *, recodes: bool) -> None:
    """Check what a pass promised: inputs and outputs kept, and `changed` true."""
    contract = before.contract
    model = read_onnx(change.network.main.path)
    # A pass that recodes says itself what goes in.
    inputs = change.network.contract.inputs if recodes else contract.inputs
    if inputs_of(model) != inputs or [o.name for o in outputs_of(model)] != [
        o.name for o in contract.outputs
    ]:
        raise ContractError(
            f"passes.{name}: inputs or outputs are not what they were", hint="Report it to the pass's author."
        )
    digests = {n: g.sha256 for n, g in before.graphs.items()}
    touched = change.plan is not None or any(
        g.sha256 != digests.get(n) for n, g in change.network.graphs.items()
    )
    if touched != change.changed:
        raise ContractError(
            f"passes.{name}: says changed={change.changed}, its files say {touched}",
            hint="Report it to the pass's author.",
        )


def _context(ask: Ask, folder: Path, network: Network, data: Data | None, given: _Given) -> Context:
    part, contract = ask.checked.recipe.data, network.contract
    if given.scene:
        asked = given.recorded
        assert asked
        # Pictures are made once, however often a pass looks at them.
        seen: list[Inputs] = []

        def samples() -> list[Inputs]:
            if not seen:
                seen.extend(asked(network))
            return seen

        return Context(
            out=folder, samples=samples, digest=digest_value(scene_key(given.scene)), seed=part.seed, scene=given.scene,
            why_no_score="pictures are judged by latent_error and task_drop", time=_timer(ask, network, None) if _prices_here(ask) else None,
        )  # fmt: skip
    real = data if data and contract.frames else None
    if data and not real and not part.allow_random:
        raise RecipeError(
            f"{ask.checked.path}: the model declares no pre-processing, so images cannot become its inputs",
            hint="Add a `preprocess:` part, or set data.allow_random: true and expect to lose accuracy.",
        )
    why = _why_no_score(contract, data)
    return Context(
        out=folder,
        samples=lambda: inputs_from(contract, real.calibration if real else (), part.samples, part.seed),
        digest=real.calibration_digest if real else "random",
        seed=part.seed,
        score=_scorer(ask, data) if data and not why else None,
        why_no_score=why,
        time=_timer(ask, network, data) if _prices_here(ask) else None,
    )


def _why_no_score(contract: Contract, data: Data | None) -> str:
    if data is None:
        return "there are no labelled training images"
    if contract.answers.task != data.task:
        return f"accuracy of {contract.answers.task} models is not judged on data to {data.task}"
    return "" if data.guard else "calibration took every training image"


def inputs_from(contract: Contract, samples: Sequence[Sample], count: int, seed: int) -> Iterable[Inputs]:
    """Give model inputs made from samples, or seeded random ones where there are none."""
    if samples and contract.frames:
        shape = contract.inputs[0].shape
        for sample in steps("calibration", samples, len(samples)):
            tensor, _ = prepare(
                read_frame(sample.path, contract.frames), contract.frames, (shape[2], shape[3])
            )
            yield {contract.inputs[0].name: tensor}
        return
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield random_inputs(contract, rng)


def judge_of(ask: Ask) -> dict[str, str]:
    """Return the engine that stands for all while a guard looks for layers: the device's first one here."""
    for wanted in wanted_for(ask, Networks(float32=_NO_NETWORK)):
        if wanted.backend != "tensorrt":
            return {"backend": wanted.backend}
    return {"backend": "onnxruntime"}


_NO_NETWORK = Network(graphs={}, contract=Contract(inputs=(), outputs=()))


def _candidate(ask: Ask, candidate: Candidate) -> Lowered:
    network, plan = candidate
    backend = judge_of(ask)["backend"]
    precision = "int8" if plan else "fp32"
    styles = int8_styles(ask, backend)
    threads = int(ask.passport["cores_physical"])
    wanted = Wanted(backend=backend, precision=precision, style=styles[0] if plan else "", threads=threads)
    return lowered_from(ask, network, plan, wanted)


def _scorer(ask: Ask, data: Data) -> Callable[[Candidate], float]:
    def score(candidate: Candidate) -> float:
        lowered = _candidate(ask, candidate)
        found = judged(ask, lowered, data.guard, data.names, digest=data.guard_digest, where="guard")
        return found.scores.value(metric_of(ask, data))

    return score


def _timer(ask: Ask, network: Network, data: Data | None) -> Callable[[Sequence[Candidate]], list[float]]:
    files = timing_frames(data, network.contract)

    def time(candidates: Sequence[Candidate]) -> list[float]:
        artifacts = {str(k): _candidate(ask, c).artifact for k, c in enumerate(candidates)}
        samples = contest(artifacts, files, runs=_TIMED_RUNS)
        return [median(samples[str(k)].spans["model"]) for k in range(len(candidates))]

    return time
