"""What a recipe says, as records; the schema is `edgekit/recipe/v1`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from edgekit.training.settings import TrainPart

SCHEMA = "edgekit/recipe/v1"
STRICT = {"extra": "forbid"}

Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """Where the model comes from: exactly one of `name`, `path`, `function`, `pipeline`.

    Attributes:
        name: A model of the catalogue (`edgekit models list`).
        path: An `.onnx`, `.pt` or `.yaml` file, relative to the recipe.
        function: A torch module as `package.module:function`.
        pipeline: A diffusion pipeline: a shipped one, a folder that diffusers saved, or `owner/name` of the hub.
        weights: A safetensors file for a catalogue model; its own where empty.
        trust: Allow what runs foreign code: a `.pt` pickle or a function.
        nc: Number of classes for an architecture without weights.
        options: Of an architecture, such as `head: light` (`edgekit models list` names them).
    """

    __pydantic_config__ = STRICT

    name: str = ""
    path: str = ""
    function: str = ""
    pipeline: str = ""
    weights: str = ""
    trust: bool = False
    nc: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PreprocessPart:
    """How a frame becomes the input; empty keys are taken from the model where it declares them.

    Attributes:
        resize: letterbox, stretch or crop.
        pad: Grey level of the border.
        color: rgb or bgr.
        scale: Factor on 0 to 255, a number or a fraction such as 1/255.
        mean: Subtracted after scaling, per channel.
        std: Divided by, per channel.
    """

    __pydantic_config__ = STRICT

    resize: Literal["letterbox", "stretch", "crop"] = "letterbox"
    pad: int = 114
    color: Literal["rgb", "bgr"] = "rgb"
    scale: str | float = "1/255"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class AnswersPart:
    """How outputs become answers; empty keys are taken from the model where it declares them.

    Attributes:
        task: detect, classify or raw; empty lets the model say.
        layout: Of a detector's output as the file gives it: yolov8 or end-to-end.
        classes: Class names by index.
        score: Detections below are dropped.
        iou: NMS threshold.
    """

    __pydantic_config__ = STRICT

    task: Literal["", "detect", "classify", "raw"] = ""
    layout: Literal["", "yolov8", "end-to-end"] = ""
    classes: tuple[str, ...] = ()
    score: float = 0.25
    iou: float = 0.7


@dataclass(frozen=True, kw_only=True)
class DataPart:
    """Real samples: for calibration, for accuracy, for the inputs of every timing.

    Attributes:
        path: A `data.yaml` in YOLO layout, a COCO JSON file with `images` beside it (`{split}` in the
            name stands for the split), or a set edgekit draws itself (`edgekit data list`).
        training: Split that `train` learns from.
        calibration: Split calibration draws from.
        validation: Split accuracy is judged on.
        images: Folder of a COCO file's images; beside the file where empty.
        samples: Calibration samples.
        limit: Validation images at most; 0 takes all.
        metric: map50 or map50_95 of detectors, top1 or macro_f1 of classifiers; empty takes map50 or top1.
        bands: Object sizes, square root of the area in pixels, at which AP is split in the report.
        seed: Of every draw.
        allow_random: Allow calibration on random numbers where there is no data.
    """

    __pydantic_config__ = STRICT

    path: str = ""
    training: str = "train"
    calibration: str = "train"
    validation: str = "val"
    images: str = ""
    samples: int = 256
    limit: int = 0
    metric: Literal["", "map50", "map50_95", "top1", "macro_f1"] = ""
    bands: tuple[float, ...] = (8, 16, 32)
    seed: int = 0
    allow_random: bool = False


@dataclass(frozen=True, kw_only=True)
class ExportPart:
    """The ONNX file between all stages.

    Attributes:
        imgsz: Side of the square input in pixels; 0 keeps the model's own.
        opset: ONNX opset.
        decode: Where a detector's boxes are decoded: host (in float32, after the threshold) or network.
    """

    __pydantic_config__ = STRICT

    imgsz: int = 0
    opset: int = 17
    decode: Literal["host", "network"] = "host"


@dataclass(frozen=True, kw_only=True)
class BenchPart:
    """How latency is measured.

    Attributes:
        mode: smoke, quick or standard.
        threads: Thread counts to try; empty takes the physical cores.
    """

    __pydantic_config__ = STRICT

    mode: Literal["smoke", "quick", "standard"] = "standard"
    threads: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DiffusionPart:
    """What a diffusion pipeline is asked for, and how its pictures are judged.

    Attributes:
        prompts: A text file beside the recipe, or in the pipeline's folder: one prompt a line, of what users will ask for; labels
            or numbers of classes where it takes those.
        held_out: Prompts of it, evenly spread, that nothing is fitted to: they judge.
        schedule: Sampler: ddim, dpm++ or lcm.
        steps: Of it.
        guidance: How far pictures are pushed to their prompt; 1 for not at all.
        judge: An ONNX classifier of pictures, found likewise, whose class names stand in the prompts; empty judges latents alone.
        judged: Pictures that it judges, of the dense pipeline and of this one.
        seed: Of every draw.
    """

    __pydantic_config__ = STRICT

    prompts: str = ""
    held_out: int = 8
    schedule: Literal["ddim", "dpm++", "lcm"] = "ddim"
    steps: int = 25
    guidance: float = 7.5
    judge: str = ""
    judged: int = 200
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe.

    Attributes:
        schema: Always edgekit/recipe/v1.
        model: The model.
        preprocess: Frame to input.
        answers: Outputs to answers.
        data: Real samples.
        train: Train the model on the data first.
        diffusion: What a pipeline is asked for.
        passes: Passes in order, each `name: {settings}`.
        export: The ONNX file.
        gates: What must hold on every device, `name: limit`.
        bench: How latency is measured.
        devices: What differs on one device: gates, and `precision` or `backend`.
        name: Of the bundle; the file's name where empty.
        description: One line for `edgekit recipes list`.
    """

    __pydantic_config__ = STRICT

    schema: Literal["edgekit/recipe/v1"]
    model: ModelPart
    preprocess: PreprocessPart | None = None
    answers: AnswersPart = field(default_factory=AnswersPart)
    data: DataPart = field(default_factory=DataPart)
    train: TrainPart | None = None
    diffusion: DiffusionPart | None = None
    passes: tuple[Any, ...] = ()
    export: ExportPart = field(default_factory=ExportPart)
    gates: dict[str, Any] = field(default_factory=dict)
    bench: BenchPart = field(default_factory=BenchPart)
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    name: str = ""
    description: str = ""
