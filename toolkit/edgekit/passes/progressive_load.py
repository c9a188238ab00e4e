"""Cut a model into segments that are loaded one by one, behind a student that answers at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.core.digest import digest_file
from edgekit.core.errors import ContractError, RecipeError
from edgekit.core.lazy import need
from edgekit.core.records import Graph, Network
from edgekit.graph.onnx_file import save_onnx
from edgekit.graph.static import slim
from edgekit.graph.walk import name_nodes
from edgekit.passes.protocol import Change, Context, Pass
from edgekit.plans.progressive import chain

# Relative to the largest output; every chain against torch.
_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of progressive-load: train a student, and load its teacher behind it (arXiv 2509.22319).

    Attributes:
        student: Catalogue name of the network that answers first; empty takes the model's own.
        options: Of the student, as `model.options`.
        student_weights: A safetensors file to start from.
        stages: Names of the modules that end stages, the embedder's first; empty where edgekit knows the network.
        count: Stages that a transformer is cut into; 0 takes 4.
        order: Which stages are loaded first: `prefix` is front to back.
        masks: Mixed networks that are trained: `prefix` those that will be served, `random` any, `all` every prefix a step.
        alpha: Share of the labels against the teacher's answers.
        tau: Temperature of both answers (classifiers).
        sync: Weight of boundaries that shall be alike through the converters.
        recon: Weight of converters that shall undo each other.
        cross: Weight of what mixed networks answer.
        epochs: Passes over the training images.
        batch: Images a step.
        optimizer: sgd (the authors'), or adamw, which transformers need.
        lr: Highest learning rate.
        converter_rate: Learning rate of the converters, as a factor.
    """

    student: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    student_weights: str = ""
    stages: tuple[str, ...] = ()
    count: int = 0
    order: Literal["prefix"] = "prefix"
    masks: Literal["prefix", "random", "all"] = "prefix"
    alpha: float = 0.4
    tau: float = 2.0
    sync: float = 1.0
    recon: float = 1.0
    cross: float = 2.0
    epochs: int = 100
    batch: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    converter_rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError("alpha should be a share from 0 to 1")
        if not 0.1 <= self.tau <= 100:
            raise ValueError("tau should be 0.1 to 100")
        if min(self.sync, self.recon, self.cross) < 0:
            raise ValueError("sync, recon and cross should be 0 or more")
        if not 1 <= self.epochs <= 10000 or not 1 <= self.batch <= 1024:
            raise ValueError("epochs should be 1 to 10000, batch 1 to 1024")
        if not 1e-7 <= self.lr <= 1 or not 0 <= self.converter_rate <= 100:
            raise ValueError("lr should be 1e-07 to 1, converter_rate 0 to 100")


class ProgressiveLoad:
    """Writes one ONNX file a segment beside the whole model; training made the student (`jobs.grow`)."""

    works_on = "torch"
    settings = Settings
    needs_samples = False
    recodes = False
    summary = "answer at once with a student, grow into the model while serving (progressive weight loading)"

    def run(self, network: Network, settings: Settings, context: Context) -> Change:
        """Write the segments, and hold every chain of them against torch.

        Raises:
            RecipeError: Nothing was trained.
            ContractError: A chain differs from torch.
        """
        if context.grown is None:
            raise RecipeError("passes.progressive-load: no student was trained", hint="Report it.")
        # torch is loaded by those who need it.
        from edgekit.export.staged_onnx import converters_of, parts_of
        from edgekit.training.distillation.build import pair_of
        from edgekit.training.distillation.masks import prefix_masks

        grown, spec = context.grown, network.contract.inputs[0]
        pair, _ = pair_of(
            grown.teacher, grown.student, shape=spec.shape[1:], stages=settings.stages, count=settings.count,
            weights=grown.weights, export=True,
        )  # fmt: skip
        masks = prefix_masks(pair.stages)
        parts = parts_of(pair, masks, shape=spec.shape[1:], input_name=spec.name, opset=context.opset)
        graphs = dict(network.graphs)
        for name, part in parts.items():
            model = slim(part.model, where=name)
            name_nodes(model.graph)
            save_onnx(model, context.out / f"{name}.onnx")
            graphs[name] = Graph(
                path=context.out / f"{name}.onnx", sha256=digest_file(context.out / f"{name}.onnx")
            )
        steps = [
            {
                "mask": m,
                "segments": list(chain(m, converters_of(pair), taps=pair.student.taps)),
                "accuracy": a,
            }
            for m, a in zip(masks, grown.accuracy, strict=True)
        ]
        facts = {
            "metric": grown.metric, "steps": steps, "stages": pair.stages, "student": grown.student.what,
            "segments": {n: (context.out / f"{n}.onnx").stat().st_size for n in parts},
            "parity": _parity(pair, steps, context.out, spec), "history": list(grown.history),
        }  # fmt: skip
        return Change(network=replace(network, graphs=graphs), changed=True, facts=facts)


def _parity(pair: Any, steps: list[dict[str, Any]], folder: Path, spec: Any) -> float:
    """Return the largest relative error of a chain against the mixed network in torch.

    Raises:
        ContractError: It is above 1e-3.
    """
    torch, ort = need("torch", extra="train"), need("onnxruntime", extra="host")
    names = dict.fromkeys(itertools.chain.from_iterable(s["segments"] for s in steps))
    sessions = {
        n: ort.InferenceSession(str(folder / f"{n}.onnx"), providers=["CPUExecutionProvider"]) for n in names
    }
    x = np.random.default_rng(0).random(spec.shape, np.float32)
    worst = 0.0
    for step in steps:
        values, found = {spec.name: x}, []
        for name in step["segments"]:
            session = sessions[name]
            found = session.run(None, {i.name: values[i.name] for i in session.get_inputs()})
            values |= dict(zip((o.name for o in session.get_outputs()), found, strict=True))
        with torch.no_grad():
            said = pair.mixed(torch.from_numpy(x), step["mask"])
        wanted = (said if isinstance(said, list | tuple) else [said])[0].numpy()
        worst = max(worst, float(np.abs(found[0] - wanted).max()) / max(float(np.abs(wanted).max()), 1e-12))
    if not worst <= _TOLERANCE:
        raise ContractError(
            f"progressive-load: the segments differ from torch by {worst:.2e} of the largest output",
            hint=f"{_TOLERANCE:g} is allowed. Report it with the model's architecture.",
        )
    return worst


PLUGIN: Pass = ProgressiveLoad()
