"""Lower the parts of a diffusion pipeline for one variant, and open them as an app would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.digest import digest_file
from edgekit.core.files import write_json
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Contract, Network
from edgekit.frames.tokens import read_tokens, write_tokens
from edgekit.graph.onnx_file import inputs_of, outputs_of, read_onnx
from edgekit.jobs.ask import Ask
from edgekit.jobs.variants import Lowered, lowered_from
from edgekit.passes.protocol import Scene
from edgekit.plans.diffusion import (
    DECODER,
    FILE,
    NETWORK,
    TEXT,
    TOKENIZER,
    Diffusion,
    diffusion_data,
    diffusion_from,
)
from edgekit.plans.progressive import Segment
from edgekit.runtime.painting import Painting, open_painting

# In the order in which they are needed.
_PARTS = (TEXT, NETWORK, DECODER)


def part_network(network: Network, name: str) -> Network:
    """Return one part of a pipeline as a network of its own."""
    graph = network.graphs[name]
    model = read_onnx(graph.path)
    contract = Contract(inputs=inputs_of(model), outputs=outputs_of(model))
    return Network(graphs={"main": graph}, contract=contract, source={"part": name})


def parts_of(ask: Ask, network: Network, one: Lowered) -> dict[str, Lowered]:
    """Return every part for a variant: the network as it was lowered, the others as float32 files for the same engine.

    All run with the variant's options, so that those of a bf16 variant compute in bf16, too. Nothing calibrated them for int8.
    """
    found = {}
    for name in (n for n in _PARTS if n in network.graphs):
        if name == NETWORK:
            found[name] = one
            continue
        wanted = replace(one.wanted, precision="fp32", style="")
        found[name] = lowered_from(ask, part_network(network, name), None, wanted)
    return found


def place_parts(folder: Path, scene: Scene, network: Network, parts: Mapping[str, Lowered]) -> None:
    """Write a pipeline's files and its `diffusion.json` into an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    segments = {}
    for name, lowered in parts.items():
        shutil.copytree(lowered.artifact.folder, folder / name)
        main = folder / name / lowered.artifact.main.name
        contract = part_network(network, name).contract
        beside = {
            p.relative_to(folder).as_posix(): digest_file(p)
            for p in sorted((folder / name).iterdir())
            if p != main
        }
        segments[name] = Segment(
            name=name, file=main.relative_to(folder).as_posix(), sha256=digest_file(main), beside=beside,
            size=sum(p.stat().st_size for p in (folder / name).iterdir()),
            inputs=tuple(s.name for s in contract.inputs), outputs=tuple(s.name for s in contract.outputs),
        )  # fmt: skip
    pipeline = scene.pipeline
    if pipeline.conditions == "text":
        tokens = read_tokens(pipeline.folder / TOKENIZER, length=pipeline.length, pad=pipeline.pad)
        write_tokens(tokens, folder / TOKENIZER)
    plan = Diffusion(
        parts=segments, conditions=pipeline.conditions, latents=scene.shape, noise=pipeline.noise, schedule=scene.schedule,
        steps=scene.steps, guidance=scene.guidance, length=pipeline.length, pad=pipeline.pad, labels=pipeline.labels,
        blank=pipeline.blank, batch=network.contract.inputs[0].shape[0],
    )  # fmt: skip
    write_json(folder / FILE, diffusion_data(plan))


@contextmanager
def painting(folder: Path, like: Artifact, *, watch: Any = None) -> Iterator[Painting]:
    """Open a folder of `place_parts` with the engine of an artifact.

    Args:
        folder: Holds the parts.
        like: Whose engine and options run them.
        watch: Wraps the session of each part, by its name, to see what goes in.
    """
    plan = diffusion_from((folder / FILE).read_text(), where=str(folder / FILE))
    backend = pick("backends", like.backend, what="backend")
    with open_painting(
        plan, folder, lambda p: backend.open(replace(like, main=folder / p.file)), watch=watch
    ) as opened:
        yield opened


class Recorder:
    """A session that remembers what it was asked, and what it answered."""

    def __init__(self, session: Any, wanted: frozenset[int]) -> None:
        self._session, self._wanted, self._calls = session, wanted, 0
        self.seen: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []

    def __exit__(self, *_: object) -> None:
        """Free the engine."""
        self._session.__exit__()

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer, and remember the questions that are wanted, by their number."""
        given = {n: np.array(v) for n, v in inputs.items()} if self._calls in self._wanted else None
        found: dict[str, Any] = self._session.infer(inputs)
        if given is not None:
            self.seen.append(given)
            self.answers.append({n: np.array(v) for n, v in found.items()})
        self._calls += 1
        return found
