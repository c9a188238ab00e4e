"""Load a recipe's model as a clean float32 ONNX graph with static shapes and a contract."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core import versions
from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError
from edgekit.core.plugins import pick
from edgekit.core.records import Answers, Contract, Frames, Graph, Network, TensorSpec
from edgekit.core.watch import watcher
from edgekit.data.sample import Sample
from edgekit.export.torch_onnx import check_parity, to_onnx
from edgekit.forms.stored import restore, store
from edgekit.frames.images import read_image
from edgekit.frames.prepare import prepare
from edgekit.graph.cost import cost_of
from edgekit.graph.half import restore_half
from edgekit.graph.onnx_file import inputs_of, metadata_of, outputs_of, read_onnx, save_onnx
from edgekit.graph.static import fix_shapes, slim
from edgekit.graph.walk import name_nodes
from edgekit.jobs.ask import Ask
from edgekit.jobs.data import Data
from edgekit.jobs.host_decode import host_decoded
from edgekit.models.declared import declared_by, detector_layout
from edgekit.models.find import find_by_name, find_by_path, find_function, shipped_models
from edgekit.models.records import Declared, Source

# Real images that an export is compared on.
_PARITY_IMAGES = 4
_NO_SHAPE = (1, 3, 640, 640)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model ready for passes.

    Attributes:
        network: Float32, one graph, static shapes.
        params: Elements of weights.
        gflops: 2 x multiply-adds of one inference, in 1e9.
        activations_m: Elements that convolutions and products write, in 1e6.
        licence: As the model declares it.
        parity: Largest relative error of the export against torch; None for ONNX files.
        other_sizes: Whether the model can be had at other image sizes.
    """

    network: Network
    params: int
    gflops: float
    activations_m: float
    licence: str = ""
    parity: float | None = None
    other_sizes: bool = False


def find_model(ask: Ask, classes: int = 0, *, weights: Path | None = None) -> Source:
    """Return the recipe's model, found but not loaded.

    Args:
        ask: The compile.
        classes: Number of the data's classes.
        weights: Trained ones, instead of the recipe's.

    Raises:
        RecipeError: It is missing, unknown, or a pickle without trust.
    """
    part, beside = ask.checked.recipe.model, ask.checked.beside
    nc = part.nc or classes
    if part.name:
        given = weights or (beside(part.weights) if part.weights else _own_weights(ask))
        return find_by_name(part.name, weights=given, nc=nc, options=part.options)
    if part.path:
        return find_by_path(beside(part.path), trust=part.trust, nc=nc)
    return find_function(part.function, trust=part.trust)


def _own_weights(ask: Ask) -> Path | None:
    """Return the weights of a shipped model where a pass needs it in torch; its ONNX file does without them."""
    name = ask.checked.recipe.model.name
    in_torch = any(pick("passes", s.name, what="pass").works_on == "torch" for s in ask.checked.steps)
    return (
        shipped_models()[name].with_suffix(".safetensors") if in_torch and name in shipped_models() else None
    )


def load_model(
    ask: Ask, source: Source, samples: Sequence[Sample], names: Sequence[str], *, side: int | None = None
) -> Loaded:
    """Return the model as ONNX, exported from torch with parity where it is torch; kept in the cache.

    Args:
        ask: The compile.
        source: The model.
        samples: Real images for the export's parity check; random input where there are none.
        names: Class names of the data; empty without data.
        side: Image side in pixels instead of the one asked for.

    Raises:
        RecipeError: It cannot be read, or does not fit the data's classes.
        ContractError: The export differs from torch.
    """
    recipe = ask.checked.recipe
    size = ask.side if side is None else side
    coding = source.settings.get("coding")
    if coding and not size:
        # A sensor has one size: that of the planes the network was trained on.
        size = int(coding["height"])
    few = [] if behind_sensor(ask) else list(samples[:_PARITY_IMAGES])
    inputs = {
        "source": {**vars(source), "path": str(source.path or "")}, "side": size, "coded": behind_sensor(ask), "export": recipe.export,
        "answers": recipe.answers, "frames": ask.checked.frames, "names": list(names), "code": versions.code(),
        "seed": recipe.data.seed if source.kind != "onnx" else 0,
        # A function's code and weights may lie anywhere: it is called anew each time, and what
        # follows is keyed by the graph it gave.
        "once": uuid.uuid4().hex if source.kind == "function" else "",
        "samples": [digest_file(s.path) for s in few],
        "tools": versions.versions("onnx", "onnxslim", "onnxruntime", "torch", "ultralytics"),
    }  # fmt: skip

    def make(folder: Path) -> None:
        watcher().phase("model")
        _make(folder, ask, source, few, names, size)

    return _kept(ask.cache.step("model", inputs, make))


def _make(
    folder: Path, ask: Ask, source: Source, few: Sequence[Sample], names: Sequence[str], size: int
) -> None:
    parity: float | None = None
    if source.kind == "onnx":
        assert source.path
        model = restore_half(read_onnx(source.path))
        other_sizes = any(-1 in s.shape[2:] for s in inputs_of(model) if len(s.shape) == 4)
        model = fix_shapes(model, imgsz=size, where=source.what)
        declared = declared_by(metadata_of(model), inputs_of(model), outputs_of(model))
    else:
        model, declared, parity = _from_torch(ask, source, few, size)
        other_sizes = source.kind == "ultralytics" and not behind_sensor(ask)
    name_nodes(model.graph)
    _refuse_types(model, source.what)
    contract = contract_of(ask, model, declared, names, source.what)
    model, contract = host_decoded(ask, model, contract, few)
    path = folder / "main.onnx"
    save_onnx(model, path)
    cost = cost_of(model)
    facts = {"kind": source.kind, "what": source.what, "sha256": source.sha256}
    graph = Graph(path=Path("main.onnx"), sha256=digest_file(path))
    loaded = Loaded(
        network=Network(graphs={"main": graph}, contract=contract, source=facts),
        params=cost.params, gflops=round(cost.gflops, 4), activations_m=round(cost.activations / 1e6, 4),
        licence=declared.licence, parity=parity, other_sizes=other_sizes,
    )  # fmt: skip
    store(folder / "loaded.json", loaded)


def _kept(folder: Path) -> Loaded:
    loaded = restore(folder / "loaded.json", Loaded)
    return replace(loaded, network=placed(loaded.network, folder))


def placed(network: Network, folder: Path) -> Network:
    """Return a stored network with its graphs' paths in `folder`."""
    graphs = {n: replace(g, path=folder / g.path.name) for n, g in network.graphs.items()}
    return replace(network, graphs=graphs)


def _from_torch(ask: Ask, source: Source, few: Sequence[Sample], size: int) -> tuple[Any, Declared, float]:
    # torch takes a second to load; an ONNX model never needs it.
    from edgekit.models.torch_models import build, for_export

    built = build(source, seed=ask.checked.recipe.data.seed)
    module = for_export(built.module)
    side = size or int(source.settings.get("side", 0)) or _NO_SHAPE[2]
    if side % built.stride:
        raise RecipeError(
            f"export.imgsz: {side} is no multiple of the model's stride {built.stride}",
            hint=f"Take {round(side / built.stride) * built.stride}.",
        )
    small = source.kind == "small"
    shape = (1, *source.settings["shape"]) if small else (1, 3, side, side)
    model = to_onnx(
        module, shape, opset=ask.checked.recipe.export.opset, free_size=source.kind == "ultralytics",
        input_name="signal" if small else "images",
    )  # fmt: skip
    model = fix_shapes(model, imgsz=0 if small else side, where=source.what)
    model = slim(model, where=source.what)
    frames = None if behind_sensor(ask) else frames_of(ask, built.declared)
    return model, built.declared, check_parity(module, model, _images(few, frames, shape), where=source.what)


def _images(
    few: Sequence[Sample], frames: Frames | None, shape: tuple[int, ...]
) -> list[NDArray[np.float32]]:
    if few and frames:
        return [prepare(read_image(s.path), frames, (shape[2], shape[3]))[0] for s in few]
    rng = np.random.default_rng(0)
    return [rng.random(shape, np.float32) for _ in range(2)]


def _refuse_types(model: Any, where: str) -> None:
    for spec in (*inputs_of(model), *outputs_of(model)):
        if spec.dtype in {"object", "str", "bytes"}:
            raise RecipeError(f"{where}: {spec.name!r} holds text", hint="Cut the text operators off.")


def contract_of(ask: Ask, model: Any, declared: Declared, names: Sequence[str], what: str) -> Contract:
    """Return what the model takes and gives; the recipe's words stand over the model's own.

    Raises:
        RecipeError: The task does not fit the output, or the data has other classes.
    """
    said, own = ask.checked.recipe.answers, declared.answers or Answers()
    outputs = outputs_of(model)
    task = said.task or own.task
    classes = said.classes or own.classes
    layout = said.layout or own.layout
    if task == "detect":
        layout = layout or detector_layout(outputs, len(classes) or len(names))
        if not layout:
            shape = outputs[0].shape if outputs else ()
            raise RecipeError(
                f"{what}: output {shape} is neither (1, 4 + classes, anchors) nor (1, detections, 6)",
                hint="Set answers.layout, or answers.task: raw to ship it without boxes.",
            )
        classes = _detector_classes(classes, names, outputs[0].shape, layout, what)
    coded = behind_sensor(ask)
    if task != "raw" and not coded:
        _refuse_inputs(inputs_of(model), task, what)
    answers = Answers(task=task, layout=layout, classes=tuple(classes), score=said.score, iou=said.iou)
    frames = None if coded else frames_of(ask, declared)
    if not coded and task != "raw" and frames is None:
        frames = Frames()
    if task == "raw":
        answers = dataclasses.replace(Answers(), classes=tuple(classes))
    return Contract(inputs=inputs_of(model), outputs=outputs, frames=frames, answers=answers)


def behind_sensor(ask: Ask) -> bool:
    """Whether a pass lets the model take a sensor's codes: then frames are no images, and the pass says what they are."""
    return any(pick("passes", s.name, what="pass").recodes for s in ask.checked.steps)


def refuse_uncoded(ask: Ask, data: Data | None, source: Source) -> None:
    """Refuse what does not go together: raw values, images, a pass that codes them, weights that were trained behind one.

    Raises:
        RecipeError: It does not.
    """
    where, coded = ask.checked.path, behind_sensor(ask)
    if source.settings.get("coding") and not coded:
        raise RecipeError(
            f"{where}: model.weights: were trained behind a sensor's curve", hint="Add gamma-quant to passes."
        )
    if data is None or coded == (data.sensor is not None):
        return
    if coded:
        raise RecipeError(
            f"{where}: data.path: its data.yaml has no `sensor:` part, and passes.gamma-quant takes raw values",
            hint="Give raw data, or leave the pass out.",
        )
    raise RecipeError(
        f"{where}: data.path: is a sensor's raw values, which the model does not take as they are",
        hint="Add gamma-quant to passes; `curve: none` keeps all bits.",
    )


def frames_of(ask: Ask, declared: Declared) -> Frames | None:
    """Return the pre-processing: the model's own with the recipe's keys over it; None where nobody says."""
    given = ask.checked.frames
    return dataclasses.replace(declared.frames or Frames(), **given) if given else declared.frames


def _refuse_inputs(inputs: Sequence[TensorSpec], task: str, what: str) -> None:
    """Refuse inputs that a frame cannot become: it becomes one float32 tensor (1, 3, H, W)."""
    one = inputs[0] if len(inputs) == 1 else None
    if one is None or one.dtype != "float32" or len(one.shape) != 4 or one.shape[:2] != (1, 3):
        found = ", ".join(f"{s.name} {list(s.shape)} {s.dtype}" for s in inputs)
        raise RecipeError(
            f"{what}: takes {found}; a frame becomes one float32 input [1, 3, height, width]",
            hint=f"Export the {task} model so (float32, batch 1, channels first), or set answers.task: raw.",
        )


def _detector_classes(
    classes: Sequence[str], names: Sequence[str], shape: tuple[int, ...], layout: str, what: str
) -> tuple[str, ...]:
    """Return the class names: the data's where the model has only numbers for names."""
    count = shape[1] - 4 if layout == "yolov8" else len(classes) or len(names)
    unnamed = not classes or all(c.isdigit() for c in classes)
    found = tuple(names) if unnamed and names else tuple(classes)
    if names and len(names) != count:
        raise RecipeError(
            f"{what}: has {count} classes, the data has {len(names)} ({', '.join(names[:4])}, …)",
            hint="Give the data the model was trained on, or set model.nc for an architecture.",
        )
    if names and not unnamed and tuple(classes) != tuple(names):
        raise RecipeError(
            f"{what}: its classes ({', '.join(list(classes)[:4])}, …) are not the data's ({', '.join(names[:4])}, …)",
            hint="Give the data the model was trained on.",
        )
    return found or tuple(str(k) for k in range(count))
