"""Find the model a recipe names, without loading it."""

from __future__ import annotations

import re
from pathlib import Path

from edgekit.core.digest import digest_file, digest_value
from edgekit.core.errors import RecipeError
from edgekit.core.places import shipped
from edgekit.core.plugins import suggestion
from edgekit.graph.onnx_file import external_files
from edgekit.models.records import Source

_ARCHITECTURE = re.compile(r"^(yolov8|yolo11|yolo12|yolov10|yolo26)[nslmbx](-p2|-p6)?$")
FAMILIES = tuple(f"{f}{s}" for f in ("yolov8", "yolo11", "yolo26") for s in "nsmlx")

_WHY_TRUST = (
    "a .pt file is a pickle, which runs whatever code its author put in it. "
    "Set `trust: true` (--trust) only for files you made or whose author you trust."
)


def shipped_models() -> dict[str, Path]:
    """Return the models that come with edgekit, by name, each with its ONNX file."""
    return {p.stem: p for p in sorted(shipped("models").glob("*.onnx"))}


def catalogue() -> tuple[str, ...]:
    """Return every name the catalogue can build."""
    return (*shipped_models(), *FAMILIES)


def find_by_name(name: str, *, weights: Path | None = None, nc: int = 0) -> Source:
    """Return the source of a catalogue model.

    Raises:
        RecipeError: The catalogue has no such name, or the weights are missing.
    """
    if weights and not weights.is_file():
        raise RecipeError(f"{weights}: no such weights", hint="Check model.weights.")
    ours = shipped_models()
    if name in ours and weights is None:
        return Source(kind="onnx", what=name, path=ours[name], sha256=digest_file(ours[name]))
    if name in ours:
        name = "yolov8n"
    if _ARCHITECTURE.match(name):
        sha256 = digest_file(weights) if weights else ""
        settings = {"architecture": f"{name}.yaml", "nc": nc or 80, "weights": str(weights or "")}
        return Source(kind="ultralytics", what=name, sha256=sha256, settings=settings)
    raise RecipeError(f"model.name: no model {name!r}", hint=suggestion(name, catalogue()))


def find_by_path(path: Path, *, trust: bool, nc: int = 0) -> Source:
    """Return the source of a model file.

    Raises:
        RecipeError: It is missing, of an unknown kind, or a pickle without `trust`.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such model", hint="Check model.path.")
    if path.suffix == ".onnx":
        return Source(kind="onnx", what=path.name, path=path, sha256=_digest_with_data(path))
    if path.suffix in {".yaml", ".yml"}:
        settings = {"architecture": str(path), "nc": nc or 80, "weights": ""}
        return Source(
            kind="ultralytics", what=path.name, path=path, sha256=digest_file(path), settings=settings
        )
    if path.suffix == ".pt":
        if not trust:
            raise RecipeError(f"{path}: not loaded, {_WHY_TRUST}", hint="Or export it to ONNX and give that.")
        return Source(kind="ultralytics", what=path.name, path=path, sha256=digest_file(path))
    raise RecipeError(
        f"{path}: edgekit does not know {path.suffix or 'this'} files",
        hint="Give .onnx, .pt (ultralytics), .yaml (ultralytics architecture).",
    )


def _digest_with_data(path: Path) -> str:
    """Return the digest of an ONNX file with all that lies beside it as external data."""
    beside = external_files(path)
    return digest_value([digest_file(p) for p in (path, *beside)]) if beside else digest_file(path)


def find_function(spec: str, *, trust: bool) -> Source:
    """Return the source of a torch module made by `package.module:function`.

    Raises:
        RecipeError: It is not of that form, or `trust` is missing.
    """
    if not re.match(r"^[\w.]+:\w+$", spec):
        raise RecipeError(f"model.function: {spec!r} is no package.module:function", hint="Write it so.")
    if not trust:
        raise RecipeError(
            f"model.function: {spec} is code that edgekit would run",
            hint="Set `trust: true` beside it if you trust it.",
        )
    return Source(kind="function", what=spec, settings={"function": spec})
