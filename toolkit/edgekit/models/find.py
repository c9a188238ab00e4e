"""Find the model a recipe names, without loading it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.core.digest import digest_file, digest_value
from edgekit.core.errors import RecipeError
from edgekit.core.places import shipped
from edgekit.core.plugins import suggestion
from edgekit.graph.onnx_file import external_files
from edgekit.models.architectures import architectures, is_ours, refuse_options
from edgekit.models.classifiers import CLASSIFIERS, classifier_options, is_classifier
from edgekit.models.records import Source
from edgekit.models.small import SMALL
from edgekit.models.timm_weights import is_timm
from edgekit.models.weights import Header, read_header

_ULTRALYTICS = re.compile(r"^(yolov8|yolo11|yolo12|yolov10|yolo26)[nslmbx](-p2|-p6)?$")
_LISTED = (
    *(f"yolov8{s}" for s in "nsmlx"), "yolov8n-p2",
    *(f"{f}{s}" for f in ("yolo11", "yolo26") for s in "nsmlx"),
)  # fmt: skip

_WHY_TRUST = (
    "a .pt file is a pickle, which runs whatever code its author put in it. "
    "Set `trust: true` (--trust) only for files you made or whose author you trust."
)


def shipped_models() -> dict[str, Path]:
    """Return the models that come with edgekit, by name, each with its ONNX file."""
    return {p.stem: p for p in sorted(shipped("models").glob("*.onnx"))}


def families() -> tuple[str, ...]:
    """Return every architecture the catalogue lists."""
    return (*architectures(), *_LISTED)


def catalogue() -> tuple[str, ...]:
    """Return every name the catalogue can build."""
    return (*shipped_models(), *families(), *SMALL, *CLASSIFIERS)


def find_by_name(
    name: str, *, weights: Path | None = None, nc: int = 0, options: Mapping[str, Any] | None = None
) -> Source:
    """Return the source of a catalogue model.

    Args:
        name: Of the catalogue; the name of a shipped model stands for its architecture where weights are
            given.
        weights: A safetensors file; classes and options are taken from its header.
        nc: Number of classes; 0 takes those of the weights, else 80.
        options: Of the architecture.

    Raises:
        RecipeError: The catalogue has no such name, or weights or options do not fit.
    """
    ours = shipped_models()
    if name in ours and weights is None:
        if options:
            raise RecipeError(
                f"model.options: {name} is trained, its options are fixed", hint="Leave them out."
            )
        return Source(kind="onnx", what=name, path=ours[name], sha256=digest_file(ours[name]))
    if name in ours:
        name = read_header(ours[name].with_suffix(".safetensors")).architecture
    if name in SMALL:
        return _small(name, weights=weights, nc=nc, options=options)
    if is_classifier(name):
        return _classifier(name, weights=weights, nc=nc, options=options or {})
    if not is_ours(name) and not _ULTRALYTICS.match(name):
        raise RecipeError(f"model.name: no model {name!r}", hint=suggestion(name, catalogue()))
    if options and not is_ours(name):
        raise RecipeError(f"model.options: {name} has none", hint="Leave them out.")
    header = _header_of(weights, name, nc)
    timm = {"backbone_act": "relu"} if name == "ms-yolo" and is_timm(header.shapes) else {}
    settings: dict[str, Any] = {
        "architecture": name, "nc": nc or len(header.classes) or 80, "weights": str(weights or ""),
        "options": {**timm, **header.options, **(options or {})}, "classes": list(header.classes),
        "licence": header.licence, "coding": header.coding, "curve_history": curve_history(header),
        # A changed architecture file is another model.
        "file": digest_file(architectures()[name][0]) if name in architectures() else "",
    }  # fmt: skip
    if is_ours(name):
        refuse_options(name, settings["options"])
    sha256 = digest_file(weights) if weights else ""
    return Source(kind="ultralytics", what=name, sha256=sha256, settings=settings)


def _header_of(weights: Path | None, name: str, nc: int) -> Header:
    """Return the header of weights, refused where they are of another model or other classes."""
    header = read_header(weights) if weights else Header()
    if header.architecture not in {"", name}:
        raise RecipeError(
            f"{weights}: holds weights of {header.architecture}, not of {name}",
            hint=f"Write model.name: {header.architecture}.",
        )
    if weights and header.classes and nc not in {0, len(header.classes)}:
        raise RecipeError(
            f"{weights}: was trained on {len(header.classes)} classes ({', '.join(header.classes[:4])}), not {nc}",
            hint="Give the data it was trained on, or train it on yours (`train:`).",
        )
    return header


def curve_history(header: Header) -> list[Any]:
    """Return what a sensor's curve was after each epoch of the training."""
    return [e["curve"] for e in header.record.get("history", ()) if e.get("curve")]


def _small(name: str, *, weights: Path | None, nc: int, options: Mapping[str, Any] | None) -> Source:
    """Return the source of a small classifier; the shape of its signal comes with weights, or from data."""
    if options:
        raise RecipeError(f"model.options: {name} has none", hint="Leave them out.")
    header = _header_of(weights, name, nc)
    settings: dict[str, Any] = {
        "architecture": name, "nc": nc or len(header.classes), "weights": str(weights or ""), "options": {},
        "classes": list(header.classes), "licence": header.licence, "coding": header.coding, "curve_history": curve_history(header),
        "shape": list(header.record.get("shape", ())),
    }  # fmt: skip
    return Source(kind="small", what=name, sha256=digest_file(weights) if weights else "", settings=settings)


def _classifier(name: str, *, weights: Path | None, nc: int, options: Mapping[str, Any]) -> Source:
    """Return the source of an image classifier; what its weights were trained with stands below the options."""
    header = _header_of(weights, name, nc)
    settings: dict[str, Any] = {
        "architecture": name, "nc": nc or len(header.classes) or 1000, "weights": str(weights or ""),
        "options": classifier_options(name, {**header.options, **options}), "classes": list(header.classes),
        "licence": header.licence, "side": int(header.record.get("judged_at", 0)),
    }  # fmt: skip
    sha256 = digest_file(weights) if weights else ""
    return Source(kind="classifier", what=name, sha256=sha256, settings=settings)


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
