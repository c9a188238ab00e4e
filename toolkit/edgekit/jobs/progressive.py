"""Put the segments of a growing model together for each engine, and find out what every step of it is worth."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.calibration.layers import choices, float_tensors
from edgekit.calibration.ranges import observe
from edgekit.core import versions
from edgekit.core.digest import digest_file
from edgekit.core.files import write_json
from edgekit.core.lazy import need
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Contract, Network, QuantPlan
from edgekit.core.watch import steps as watched
from edgekit.core.watch import watcher
from edgekit.data.sample import Sample
from edgekit.forms.stored import restore, store
from edgekit.frames.coded import read_frame
from edgekit.frames.prepare import prepare
from edgekit.graph.onnx_file import inputs_of, outputs_of, read_onnx
from edgekit.jobs.accuracy import labels_of, metric_of, truths_of
from edgekit.jobs.ask import Ask
from edgekit.jobs.data import Data
from edgekit.jobs.grow import NAME
from edgekit.jobs.passes import inputs_from
from edgekit.jobs.trial import machine_key
from edgekit.jobs.variants import Lowered, Networks, lowered_from
from edgekit.metrics.classes import class_scores
from edgekit.metrics.coco_map import LIMIT, SCORE, Found, score
from edgekit.plans.progressive import FILE, Growth, Segment, Step, growth_data, growth_from

# Samples that a segment's int8 ranges are observed on.
_CALIBRATION = 128


def grows(networks: Networks) -> bool:
    """Return whether a pass cut the model into segments."""
    return NAME in networks.facts


def chained(ask: Ask, networks: Networks, one: Lowered, data: Data | None) -> Path | None:
    """Return a folder with a variant's segments and their `progressive.json`, accuracy measured; kept in the cache.

    None where the engine is built on the device, or the precision belongs to the whole graph: such a variant stays whole.

    Args:
        ask: The compile.
        networks: After the passes.
        one: The variant.
        data: To calibrate and judge on.
    """
    if one.wanted.backend == "tensorrt" or one.wanted.precision == "fp16":
        return None
    names = list(networks.facts[NAME]["segments"])
    lowered = {n: _lowered(ask, networks, n, one, data) for n in names}
    inputs = {
        "segments": {n: x.digest for n, x in lowered.items()}, "steps": networks.facts[NAME]["steps"],
        "validation": data.validation_digest if data else "", "code": versions.code(), "machine": machine_key(ask),
        "metric": metric_of(ask, data) if data else "", "tools": versions.versions("numpy", one.wanted.backend),
    }  # fmt: skip

    def make(folder: Path) -> None:
        files = folder / "files"
        segments = {n: _placed(files, n, lowered[n], networks) for n in names}
        given = networks.facts[NAME]["steps"]
        steps = tuple(Step(mask=s["mask"], segments=tuple(s["segments"])) for s in given)
        growth = Growth(segments=segments, steps=steps)
        if data and data.task == networks.float32.contract.answers.task:
            watcher().phase(f"accuracy of every step: {one.wanted.plain}")
            found = accuracies(files, growth, one.artifact, data, metric_of(ask, data))
            growth = Growth(
                segments=segments, metric=metric_of(ask, data),
                steps=tuple(replace(s, accuracy=a) for s, a in zip(steps, found, strict=True)),
            )  # fmt: skip
        write_json(files / FILE, growth_data(growth))

    return ask.cache.step("chain", inputs, make) / "files"


def _segment_network(networks: Networks, name: str) -> Network:
    graph = networks.float32.graphs[name]
    model = read_onnx(graph.path)
    contract = Contract(inputs=inputs_of(model), outputs=outputs_of(model))
    return Network(graphs={"main": graph}, contract=contract, source={"segment": name})


def _lowered(ask: Ask, networks: Networks, name: str, one: Lowered, data: Data | None) -> Lowered:
    network = _segment_network(networks, name)
    plan = _plan(ask, networks, name, data) if one.wanted.precision == "int8" else None
    if plan is not None and not plan.int8_layers():
        return lowered_from(ask, network, None, replace(one.wanted, precision="fp32", style=""))
    return lowered_from(ask, network, plan, one.wanted)


def _placed(folder: Path, name: str, lowered: Lowered, networks: Networks) -> Segment:
    """Copy a segment's files into a folder of its own and say what they are."""
    shutil.copytree(lowered.artifact.folder, folder / name)
    main = folder / name / lowered.artifact.main.name
    beside = {
        p.relative_to(folder).as_posix(): digest_file(p)
        for p in sorted((folder / name).iterdir())
        if p != main
    }
    contract = _segment_network(networks, name).contract
    return Segment(
        name=name, file=main.relative_to(folder).as_posix(), sha256=digest_file(main), beside=beside,
        size=sum(p.stat().st_size for p in (folder / name).iterdir()),
        inputs=tuple(s.name for s in contract.inputs), outputs=tuple(s.name for s in contract.outputs),
    )  # fmt: skip


def _plan(ask: Ask, networks: Networks, name: str, data: Data | None) -> QuantPlan:
    """Return the int8 plan of one segment; its ranges are observed behind every chain that leads to it."""
    graphs = networks.float32.graphs
    kind = next(s.settings.kind(paints=False) for s in ask.checked.steps if s.name == "quantize-int8")
    inputs = {
        "ranges": kind, "segment": {n: graphs[n].sha256 for n in networks.facts[NAME]["segments"]}, "name": name, "code": versions.code(),
        "calibration": data.calibration_digest if data else "random", "tools": versions.versions("onnx", "onnxruntime"),
    }  # fmt: skip

    def make(folder: Path) -> None:
        watcher().phase(f"int8 ranges of {name}")
        model = need("onnx", extra="host").shape_inference.infer_shapes(read_onnx(graphs[name].path))
        layers = choices(model)
        ranges = {}
        if any(c.precision == "int8" for c in layers):
            seen = observe(model, float_tensors(model), _given_to(ask, networks, name, data))
            ranges = seen.typical() if kind == "typical" else seen.over_all()
        digest = data.calibration_digest if data else "random"
        store(folder / "plan.json", QuantPlan(ranges=ranges, layers=layers, calibration=digest))

    return restore(ask.cache.step("segment-plan", inputs, make) / "plan.json", QuantPlan)


def _given_to(ask: Ask, networks: Networks, name: str, data: Data | None) -> Iterator[dict[str, Any]]:
    """Give what a segment takes, for each sample and each chain that leads to it."""
    steps = [s["segments"] for s in networks.facts[NAME]["steps"]]
    leads = dict.fromkeys(tuple(s[: s.index(name)]) for s in steps if name in s)
    ort = pick("backends", "onnxruntime", what="backend")
    sessions: dict[str, Any] = {}
    for lead in leads:
        for part in lead:
            if part not in sessions:
                network = _segment_network(networks, part)
                artifact = Artifact(
                    backend="onnxruntime", precision="fp32", main=network.main.path, contract=network.contract
                )
                sessions[part] = (ort.open(artifact), [s.name for s in network.contract.inputs])
    wanted = [s.name for s in _segment_network(networks, name).contract.inputs]
    samples = data.calibration[:_CALIBRATION] if data else ()
    for given in inputs_from(networks.float32.contract, samples, _CALIBRATION, ask.checked.recipe.data.seed):
        for lead in leads:
            values: dict[str, Any] = dict(given)
            for part in lead:
                session, names = sessions[part]
                values |= session.infer({n: values[n] for n in names})
            yield {n: values[n] for n in wanted}


def accuracies(folder: Path, growth: Growth, like: Artifact, data: Data, metric: str) -> list[float]:
    """Return the accuracy of every step on the validation samples, by the files that will be served.

    Args:
        folder: Holds the segments.
        growth: What they are.
        like: Whose engine and options run them, and whose contract they serve.
        data: Labelled samples.
        metric: Of the data's task.
    """
    backend = pick("backends", like.backend, what="backend")
    sessions = {n: backend.open(replace(like, main=folder / s.file)) for n, s in growth.segments.items()}
    found: list[list[Any]] = [[] for _ in growth.steps]
    for sample in watched("accuracy of every step", data.validation, len(data.validation)):
        for k, answer in enumerate(_answers(sample, growth, sessions, like.contract)):
            found[k].append(answer)
    return [_scored(rows, data, metric) for rows in found]


def _answers(
    sample: Sample, growth: Growth, sessions: Mapping[str, Any], contract: Contract
) -> Iterator[Any]:
    """Give the answer of every step; chains that begin alike run once."""
    assert contract.frames
    shape, name = contract.inputs[0].shape, contract.inputs[0].name
    tensor, place = prepare(read_frame(sample.path, contract.frames), contract.frames, (shape[2], shape[3]))
    task = pick("answers", contract.answers.task, what="task")
    spec = replace(contract.answers, score=SCORE, limit=LIMIT)
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    for step in growth.steps:
        values: dict[str, Any] = {name: tensor}
        given: dict[str, Any] = {}
        for k, part in enumerate(step.segments):
            path = step.segments[: k + 1]
            if path not in known:
                known[path] = sessions[part].infer({n: values[n] for n in growth.segments[part].inputs})
            given = known[path]
            values.update(given)
        yield task.answer(given, spec, place, each_class=True)


def _scored(rows: Sequence[Any], data: Data, metric: str) -> float:
    if data.task == "classify":
        table = np.zeros((len(rows), len(data.names)), np.float32)
        for row, one in zip(table, rows, strict=True):
            row[one.classes] = one.scores
        return float(class_scores(labels_of(data.validation), table, data.names).value(metric))
    found = [Found(boxes=r.boxes, scores=r.scores, classes=r.classes) for r in rows]
    return float(score(truths_of(data.validation), found, data.names).value(metric))


def growth_of(folder: Path) -> Growth:
    """Return what a folder of `chained` holds."""
    import json

    return growth_from(json.loads((folder / FILE).read_text()), where=str(folder / FILE))
