"""Tell task, layout and class names from a model's metadata and output shapes."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from edgekit.core.records import Answers, Frames, TensorSpec
from edgekit.models.records import Declared


def declared_by(
    metadata: Mapping[str, str], inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> Declared:
    """Return what an exported file declares; ultralytics' exports and our own do, others mostly not."""
    task = metadata.get("task", "")
    names = _names(metadata.get("names", ""))
    image = len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].shape[1] == 3
    licence = metadata.get("license", "")
    if not image or not task:
        return Declared(licence=licence)
    if task == "detect":
        layout = detector_layout(outputs, len(names))
        if layout:
            answers = Answers(task="detect", layout=layout, classes=names)
            return Declared(answers=answers, frames=Frames(), licence=licence)
    if task == "classify":
        answers = Answers(task="classify", classes=names)
        return Declared(answers=answers, frames=Frames(resize="crop"), licence=licence)
    return Declared(licence=licence)


def detector_layout(outputs: tuple[TensorSpec, ...], classes: int) -> str:
    """Return "yolov8", "end-to-end", or nothing where the output has neither's shape."""
    if not outputs or len(outputs[0].shape) != 3:
        return ""
    _, rows, columns = outputs[0].shape
    if columns == 6 and rows <= 1000:
        return "end-to-end"
    if rows > 4 and (rows == 4 + classes or not classes) and (columns > rows or columns == -1):
        return "yolov8"
    return ""


def _names(text: str) -> tuple[str, ...]:
    """Return class names from metadata such as "{0: 'person', 1: 'car'}"."""
    try:
        found = ast.literal_eval(text) if text else {}
    except (ValueError, SyntaxError):
        return ()
    if isinstance(found, dict):
        return tuple(str(found[k]) for k in sorted(found))
    return tuple(str(v) for v in found) if isinstance(found, list | tuple) else ()
