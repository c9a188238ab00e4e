"""Write a commented recipe for a user's model."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.core.errors import RecipeError
from edgekit.data.make import GENERATED
from edgekit.devices.profiles import profile_of
from edgekit.models.find import catalogue, find_by_name


def recipe_text(
    model: str,
    *,
    data: str = "",
    device: str = "local",
    latency_ms: float | None = None,
    max_drop: float | None = None,
    trust: bool = False,
    folder: Path,
) -> str:
    """Return a recipe for a model file or catalogue name, with a comment for each choice.

    Args:
        model: An `.onnx` or `.pt` file, or a catalogue name.
        data: A data.yaml, COCO file or the name of a generated set; empty for none.
        device: The device the latency gate is for.
        latency_ms: Limit for the 90th percentile of the model span.
        max_drop: Largest accuracy drop, a share from 0 to 1; 0.01 where data is given.
        trust: Allow a `.pt` pickle.
        folder: Where the recipe will stand; paths in it are relative to that.

    Raises:
        RecipeError: No such model, data or device, or an argument is out of range.
    """
    profile_of(device)
    _refuse_limits(data, latency_ms, max_drop)
    drop = 0.01 if max_drop is None else max_drop
    lines = [
        "# A recipe of edgekit: what to do with one model, and what must hold afterwards.",
        "schema: edgekit/recipe/v1",
        "",
        *_model(model, folder, trust=trust),
        "",
        *(_data(data, folder) if data else _NO_DATA),
        "",
        "passes:",
        "  - simplify               # fold constants, remove needless nodes",
        *(
            [f"  - quantize-int8: {{max_drop: {drop:g}}}   # keeps layers in float until the drop holds"]
            if data
            else []
        ),
        "",
        "export: {imgsz: 0}         # side in pixels; 0 keeps the model's own (640 where it is free)",
        "",
        *(
            _gates(drop)
            if data
            else ["gates: {}                  # such as accuracy_drop, speedup, precision_share, size_mb"]
        ),
        "",
        "bench: {mode: standard}    # smoke, quick or standard",
        "",
        *_devices(device, latency_ms),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _refuse_limits(data: str, latency_ms: float | None, max_drop: float | None) -> None:
    if latency_ms is not None and not latency_ms > 0:
        raise RecipeError(
            f"--latency-ms: {latency_ms:g} is not above 0", hint="Give milliseconds, such as 15."
        )
    if max_drop is not None and not 0 <= max_drop < 1:
        raise RecipeError(
            f"--max-drop: {max_drop:g} is no share from 0 to 1", hint="0.01 is one point of mAP."
        )
    if max_drop is not None and not data:
        raise RecipeError("--max-drop needs --data: a drop is judged on labelled images", hint="Give --data.")


def _model(model: str, folder: Path, *, trust: bool) -> list[str]:
    path = Path(model)
    if model in catalogue():
        find_by_name(model)
        return [f"model: {{name: {model}}}"]
    if not path.is_file():
        near = "" if path.suffix else f" Catalogue names: {', '.join(catalogue()[:6])}, …"
        raise RecipeError(f"{model}: no such model file", hint=f"Check the path.{near}")
    shown = os.path.relpath(path.resolve(), folder.resolve())
    if path.suffix == ".pt":
        why = "a .pt is a pickle and runs its author's code when it is loaded"
        word = "true" if trust else "false"
        tail = why if trust else f"{why}: set true if you trust it"
        return ["model:", f"  path: {_quoted(shown)}", f"  trust: {word}    # {tail}"]
    return ["model:", f"  path: {_quoted(shown)}"]


def _quoted(text: str) -> str:
    plain = all(c.isalnum() or c in "._-/" for c in text)
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_NO_DATA = [
    "# data: {path: data.yaml, calibration: train, validation: val, samples: 256, metric: map50}",
    "#   Without labelled data accuracy is not judged, and quantize-int8 has nothing to calibrate on.",
]


def _data(data: str, folder: Path) -> list[str]:
    known = data in GENERATED
    places = [data.replace("{split}", s) for s in ("train", "val")]
    if not known and not all(Path(p).is_file() for p in places):
        raise RecipeError(
            f"{data}: no such data file", hint="Give a data.yaml, or COCO files as instances_{split}.json."
        )
    shown = data if known else os.path.relpath(Path(data).resolve(), folder.resolve())
    return [
        "data:",
        f"  path: {_quoted(shown)}",
        "  calibration: train       # ranges and the accuracy guard come from here",
        "  validation: val          # the verdict comes from here, and nothing else looks at it",
        "  samples: 256             # calibration images",
        "  metric: map50",
    ]


def _gates(drop: float) -> list[str]:
    return [
        "gates:                     # on every device",
        f"  accuracy_drop: {drop:g}       # absolute, a share from 0 to 1, against float32",
        "  precision_share: 0.9     # of the int8 layers' time, what really ran in int8",
    ]


def _devices(device: str, latency_ms: float | None) -> list[str]:
    if latency_ms is None:
        return [
            "# devices:                 # what differs on one device",
            f"#   {device}: {{latency_p90_ms: 15}}",
        ]
    return [
        "devices:                   # what differs on one device",
        f"  {device}: {{latency_p90_ms: {latency_ms:g}}}",
    ]
