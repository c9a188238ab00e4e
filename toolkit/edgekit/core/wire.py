"""Carry records as JSON between processes and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.records import Answers, Artifact, Coding, Contract, Frames, TensorSpec


def contract_from(data: dict[str, Any]) -> Contract:
    """Return the contract that `plain(contract)` was made from."""
    return Contract(
        inputs=tuple(tensor_from(t) for t in data["inputs"]),
        outputs=tuple(tensor_from(t) for t in data["outputs"]),
        frames=_frames(data["frames"]) if data.get("frames") else None,
        answers=_answers(data["answers"]),
    )


def artifact_from(data: dict[str, Any]) -> Artifact:
    """Return the artifact that `plain(artifact)` was made from."""
    return Artifact(
        backend=data["backend"],
        precision=data["precision"],
        main=Path(data["main"]),
        contract=contract_from(data["contract"]),
        options=data["options"],
        wanted=data["wanted"],
    )


def _answers(data: dict[str, Any]) -> Answers:
    levels = tuple((int(s), int(h), int(w)) for s, h, w in data.get("levels", ()))
    return Answers(**{**data, "classes": tuple(data["classes"]), "levels": levels})


def tensor_from(data: dict[str, Any]) -> TensorSpec:
    """Return the tensor that `plain(spec)` was made from."""
    return TensorSpec(name=data["name"], shape=tuple(data["shape"]), dtype=data["dtype"])


def _frames(data: dict[str, Any]) -> Frames:
    coding = Coding(**data["coding"]) if data.get("coding") else None
    return Frames(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"]), "coding": coding})
