"""The records that stages hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, shape and numpy dtype name of one input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How a sensor's signal becomes the bytes that a model takes.

    Attributes:
        codec: Name of the codec plug-in.
        settings: What it needs to know, as JSON.
    """

    codec: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Frames:
    """How a frame becomes the model's input: the declared pre-processing.

    Attributes:
        resize: "letterbox" (keep the aspect, pad), "stretch", or "crop" (shorter side, centre cut).
        pad: Grey level of the letterbox's border, 0 to 255.
        color: Channel order the model was trained on, "rgb" or "bgr".
        scale: Factor on the 0 to 255 values.
        mean: Per channel, subtracted after scaling.
        std: Per channel, divided by after the mean.
        coding: Where the frame is a sensor's own signal: how it is coded. The other keys then say nothing.
    """

    resize: str = "letterbox"
    pad: int = 114
    color: str = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    coding: Coding | None = None


@dataclass(frozen=True, kw_only=True)
class Answers:
    """How outputs become answers: the declared post-processing.

    Attributes:
        task: "detect", "classify", or "raw" (arrays out, accuracy not judged).
        layout: Of a detector's output: "yolov8" is (1, 4 + classes, anchors) with boxes as cx cy w h.
            "yolov8-logits" is the same before its decoder: (1, 4 * bins, anchors) box logits and
            (1, classes, anchors) class logits, which the host decodes in float32.
            "end-to-end" is (1, detections, 6) with x1 y1 x2 y2 score class and no NMS to do.
        classes: Class names by index; empty where nobody said.
        score: Detections below are dropped.
        iou: NMS threshold; classes do not suppress each other.
        limit: Detections kept at most.
        levels: Of "yolov8-logits": stride, rows and columns of each level in the order of the anchors.
    """

    task: str = "raw"
    layout: str = ""
    classes: tuple[str, ...] = ()
    score: float = 0.25
    iou: float = 0.7
    limit: int = 300
    levels: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a model takes and gives, with its declared pre- and post-processing."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    frames: Frames | None = None
    answers: Answers = field(default_factory=Answers)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file and its SHA-256."""

    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Network:
    """A model between stages: named float graphs (a detector has one, `main`) and their contract."""

    graphs: Mapping[str, Graph]
    contract: Contract
    source: Mapping[str, str] = field(default_factory=dict)

    @property
    def main(self) -> Graph:
        """The graph that takes the model's inputs."""
        return self.graphs["main"]


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """Precision of one layer in a plan, and why."""

    name: str
    op: str
    precision: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class QuantPlan:
    """What the quantize pass decided; each lowering writes it the way its engine is fast with.

    Attributes:
        ranges: Observed (low, high) of each activation tensor.
        layers: Every layer that could be int8, with the choice.
        calibration: SHA-256 over the calibration samples.
        between: Whether what stands between layers, such as additions, may run in int8, too, where an engine is fast with that.
    """

    ranges: Mapping[str, tuple[float, float]]
    layers: tuple[LayerChoice, ...]
    calibration: str
    between: bool = True

    def int8_layers(self) -> frozenset[str]:
        """Names of the layers that shall run in int8."""
        return frozenset(c.name for c in self.layers if c.precision == "int8")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What one engine reads: the files of one variant.

    Attributes:
        backend: Name of the backend plug-in.
        precision: What the plan asked for: fp32, fp16, bf16 or int8.
        main: The file the backend opens.
        options: Settings of the backend, such as threads.
        wanted: Layers by name that were planned below float32, with their dtype.
        contract: What it takes and gives.
    """

    backend: str
    precision: str
    main: Path
    contract: Contract
    options: Mapping[str, Any] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder that holds all of the artifact's files and nothing else."""
        return self.main.parent


@dataclass(frozen=True, kw_only=True)
class LayerRun:
    """One layer as it really ran: operator, dtype, unit and share of the model's time.

    Attributes:
        covers: Names of the original layers that were fused into it.
        wanted: The dtype the plan asked for, empty where it asked for none.
    """

    name: str
    op: str
    dtype: str
    unit: str
    share: float
    covers: tuple[str, ...] = ()
    wanted: str = ""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A latency that was not measured: computed from published rows.

    Attributes:
        ms: The prediction.
        low_ms: Lower end of the error band (8 of 10 held-out rows lie inside).
        high_ms: Upper end.
        basis: What it was computed from, in words.
        nearest: The nearest published row, in words.
    """

    ms: float
    low_ms: float
    high_ms: float
    basis: str
    nearest: str
