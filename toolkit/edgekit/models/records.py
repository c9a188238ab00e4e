"""What the models room hands on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.records import Answers, Frames


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a model says of itself: task, layout, class names, pre-processing."""

    answers: Answers | None = None
    frames: Frames | None = None
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that was found but not loaded yet.

    Attributes:
        kind: "onnx", "ultralytics", "small", "classifier" or "function".
        path: Its file, where it has one.
        sha256: Of that file.
        what: How a person calls it.
        settings: What loading needs to know beyond the file.
    """

    kind: str
    what: str
    path: Path | None = None
    sha256: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
