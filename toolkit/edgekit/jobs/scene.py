"""Find a recipe's diffusion pipeline, what it is asked for, and export its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.calibration.walks import evenly
from edgekit.core import versions
from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError, ResourceError
from edgekit.core.lazy import have, need
from edgekit.core.records import Contract, Graph, Network
from edgekit.core.watch import steps, watcher
from edgekit.forms.read import read_text
from edgekit.forms.stored import restore, store
from edgekit.graph.onnx_file import inputs_of, outputs_of, read_onnx
from edgekit.jobs.ask import Ask
from edgekit.jobs.model import Loaded, placed
from edgekit.models.pipelines import Pipeline, find_pipeline, read_pipeline
from edgekit.passes.protocol import Scene
from edgekit.plans.diffusion import DECODER, NETWORK, TEXT, class_of
from edgekit.plans.schedules import check_schedule

# Times the float32 weights: they are read, held, exported and simplified.
_MEMORY = 4.0
# Inputs of the network that int8 ranges are observed on.
RECORDED = 64


def is_pipeline(ask: Ask) -> bool:
    """Return whether the recipe's model is a diffusion pipeline."""
    return bool(ask.checked.recipe.model.pipeline)


def scene_of(ask: Ask) -> Scene:
    """Return the recipe's pipeline with its prompts, nothing loaded.

    Raises:
        RecipeError: The folder, its parts, or the prompts are not what they should be.
    """
    recipe, checked = ask.checked.recipe, ask.checked
    part = recipe.diffusion
    assert part is not None
    pipeline = read_pipeline(
        find_pipeline(recipe.model.pipeline, beside=checked.folder), what=Path(recipe.model.pipeline).name
    )
    where = f"{checked.path}: diffusion"
    check_schedule(part.schedule, part.steps, pipeline.noise, where=f"{where}.schedule")
    prompts = _prompts(ask, pipeline)
    held = evenly(min(part.held_out, len(prompts) // 2), len(prompts))
    pool = tuple(p for k, p in enumerate(prompts) if k not in set(held))
    return Scene(
        pipeline=pipeline, shape=(pipeline.latents, *_side(ask, pipeline)), prompts=pool, held_out=tuple(prompts[k] for k in held),
        schedule=part.schedule, steps=part.steps, guidance=_guidance(part.guidance, pipeline), seed=part.seed,
        opset=recipe.export.opset, code=versions.code(),
    )  # fmt: skip


def _guidance(given: float, pipeline: Pipeline) -> float:
    """Return the guidance; 1 where a model has no class that stands for none."""
    return 1.0 if pipeline.conditions == "class" and pipeline.blank < 0 else given


def _side(ask: Ask, pipeline: Pipeline) -> tuple[int, int]:
    if not ask.side:
        return pipeline.side, pipeline.side
    if ask.side % pipeline.factor or (ask.side // pipeline.factor) % 8:
        unit = pipeline.factor * 8
        raise RecipeError(
            f"export.imgsz: {ask.side} is no multiple of {unit} pixels, the unit of {pipeline.what}",
            hint=f"Take {max(round(ask.side / unit), 1) * unit}.",
        )
    return ask.side // pipeline.factor, ask.side // pipeline.factor


def _prompts(ask: Ask, pipeline: Pipeline) -> list[str]:
    """Return the recipe's prompts, each once.

    Raises:
        RecipeError: There are fewer than two, or one names no class.
    """
    part = ask.checked.recipe.diffusion
    assert part is not None
    file = found_beside(ask, part.prompts, pipeline)
    lines = [x.strip() for x in read_text(file, what="prompts", hint="Write one prompt a line.").splitlines()]
    found = list(dict.fromkeys(x for x in lines if x and not x.startswith("#")))
    if len(found) < 2:
        raise RecipeError(
            f"{file}: has {len(found)} prompts, at least 2 are needed: one to calibrate on, one to judge by",
            hint="Write one prompt a line, of what users will ask for.",
        )
    if pipeline.conditions == "class":
        for prompt in found:
            class_of(pipeline.labels, prompt)
    return found


def found_beside(ask: Ask, given: str, pipeline: Pipeline) -> Path:
    """Return a file that the recipe names: beside it, or in the pipeline's folder where it is not there."""
    beside, own = ask.checked.beside(given), pipeline.folder / given
    return own if not beside.exists() and own.exists() else beside


def refuse_pipeline(ask: Ask) -> None:
    """Refuse a pipeline that cannot be worked on, before anything is loaded.

    Raises:
        RecipeError: The folder or the prompts are not what they should be, or the device is a board behind a connection.
        MissingError: torch, diffusers or transformers is not installed.
        ResourceError: Its weights do not fit into this machine's memory.
    """
    for name in ("diffusers", "transformers", "safetensors"):
        if not have(name):
            need(name, extra="diffusion", why="load a diffusion pipeline")
    need("torch", extra="diffusion", why="load a diffusion pipeline")
    _refuse_device(ask)
    scene = scene_of(ask)
    part = ask.checked.recipe.diffusion
    if part and part.judge and not found_beside(ask, part.judge, scene.pipeline).is_file():
        raise RecipeError(
            f"{ask.checked.path}: diffusion.judge: {part.judge}: no such file",
            hint="Give an ONNX classifier of pictures.",
        )
    _refuse_size(scene.pipeline)


def _refuse_device(ask: Ask) -> None:
    """Refuse what cannot be measured: boards with a pipeline, and a budget of time for what is not here."""
    if ask.board or (ask.here and ask.profile.builds_engines):
        raise RecipeError(
            f"{ask.profile.name}: a pipeline is not measured over a connection, or by TensorRT engines, yet",
            hint="Compile on another machine for the profile it is of; `edgekit engine build` then builds on the board.",
        )
    timed = [s for s in ask.checked.steps if s.name == "slimdiff" and s.settings.speedup]
    if timed and not ask.here:
        raise RecipeError(
            f"{ask.checked.path}: passes.slimdiff.speedup: latency is not measured for {ask.profile.name} here",
            hint="Give keep, remove_params or mac_cut instead.",
        )


def _refuse_size(pipeline: Pipeline) -> None:
    params = weights_of(pipeline)
    free = available_bytes()
    if free is not None and params * 4 * _MEMORY > free:
        raise ResourceError(
            f"{pipeline.folder}: {free / 1e9:.1f} GB of memory are free, its {params / 1e6:.0f} M parameters need about "
            f"{params * 4 * _MEMORY / 1e9:.1f} GB",
            hint="Close other programs, or use a machine with more memory.",
        )


def weights_of(pipeline: Pipeline) -> int:
    """Return the parameters of the network, by the headers of its files.

    Raises:
        RecipeError: A file is damaged.
    """
    tensors = need("safetensors", extra="diffusion")
    count = 0
    for file in sorted((pipeline.folder / pipeline.network).glob("*.safetensors")):
        try:
            with tensors.safe_open(file, framework="numpy") as opened:
                count += sum(int(np.prod(opened.get_slice(n).get_shape())) for n in opened.keys())  # noqa: SIM118
        except (OSError, tensors.SafetensorError) as error:
            raise RecipeError(
                f"{file}: is damaged ({error})", hint="Fetch the pipeline again, or save it whole."
            ) from error
    return count


def available_bytes() -> int | None:
    """Return the memory that is free, also of a container that may use less; None where nobody says."""
    try:
        rows = dict(x.split(":", 1) for x in Path("/proc/meminfo").read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        most = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        cached = dict(x.split() for x in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        return min(free, most - used + int(cached.get("file", 0)))
    except (OSError, ValueError):
        return free


def load_scene(ask: Ask, scene: Scene) -> Loaded:
    """Return the pipeline's parts as ONNX, each proven against torch; kept in the cache.

    The graph "main" predicts noise; "text_encoder" and "decoder" stand beside it where there are such.
    """
    batch = 2 if scene.guidance > 1 else 1
    inputs = {
        "pipeline": scene.pipeline.sha256, "shape": scene.shape, "batch": batch, "opset": scene.opset, "code": versions.code(),
        "tools": versions.versions("torch", "diffusers", "transformers", "onnx", "onnxslim"),
    }  # fmt: skip

    def make(folder: Path) -> None:
        watcher().phase("export")
        store(folder / "loaded.json", _export(folder, scene, batch))

    folder = ask.cache.step("pipeline", inputs, make)
    loaded = restore(folder / "loaded.json", Loaded)
    return replace(loaded, network=placed(loaded.network, folder))


def _export(folder: Path, scene: Scene, batch: int) -> Loaded:
    from edgekit.export.diffusion_onnx import part_parity, write_part

    pipeline, graphs, worst = scene.pipeline, {}, 0.0
    for name, module, inputs, output in steps(
        "export", _modules(scene, batch), 1 + pipeline.decodes + (pipeline.conditions == "text")
    ):
        path = folder / f"{name}.onnx"
        cost = write_part(module, inputs, output, path, opset=scene.opset)
        worst = max(worst, part_parity(module, str(path), inputs, where=f"{pipeline.what} {name}"))
        graphs[name] = Graph(path=Path(path.name), sha256=digest_file(path))
        if name == NETWORK:
            model, of_network = read_onnx(path), cost
            contract = Contract(inputs=inputs_of(model), outputs=outputs_of(model))
    return Loaded(
        network=Network(
            graphs=graphs, contract=contract,
            source={"kind": "pipeline", "what": pipeline.what, "sha256": pipeline.sha256},
        ),
        params=of_network.params, gflops=round(of_network.gflops, 4), activations_m=round(of_network.activations / 1e6, 4),
        parity=worst,
    )  # fmt: skip


def _modules(scene: Scene, batch: int) -> Iterator[tuple[str, Any, dict[str, Any], str]]:
    """Give name, torch module, example inputs and output of every part; each is loaded when it is asked for."""
    from edgekit.export.diffusion_onnx import decoder_module, network_inputs, network_module, text_module
    from edgekit.models.pipelines import load_network, load_part

    torch, pipeline = need("torch", extra="diffusion"), scene.pipeline
    if pipeline.conditions == "text":
        ids = torch.zeros(1, pipeline.length, dtype=torch.int64)
        # The states of a causal encoder do not depend on where the prompt ends, but the traced graph needs an end.
        encoder = load_part(pipeline, "text_encoder")
        ids[:, -1] = int(encoder.config.eos_token_id)
        yield TEXT, text_module(encoder), {"ids": ids}, "states"
    inputs = network_inputs(pipeline, scene.shape, batch)
    yield NETWORK, network_module(load_network(pipeline), pipeline), inputs, "answer"
    if pipeline.decodes:
        latents = torch.randn(1, *scene.shape, generator=torch.Generator().manual_seed(0))
        yield DECODER, decoder_module(load_part(pipeline, "vae")), {"latents": latents}, "pixels"
