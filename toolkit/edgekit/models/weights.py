"""Read what a safetensors file says of itself, without loading its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError

_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header of a weights file.

    Attributes:
        architecture: Catalogue name of the model it belongs to; empty where nobody said.
        classes: Class names by index.
        options: Of the architecture.
        licence: Of the weights.
        record: How it was trained, where it says so.
        coding: Settings of the sensor's codec that was learned with it; None where none was.
        shapes: Of every tensor by name.
    """

    architecture: str = ""
    classes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    coding: Mapping[str, Any] | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """Return the header of a safetensors file: eight bytes of length, then JSON.

    Raises:
        RecipeError: It is missing or no safetensors file.
    """
    try:
        found = _header(path)
        words = {str(k): str(v) for k, v in (found.pop("__metadata__", None) or {}).items()}
        return Header(
            architecture=words.get("architecture", ""), classes=tuple(json.loads(words.get("classes", "[]"))),
            options=json.loads(words.get("options", "{}")), licence=words.get("license", ""),
            record=json.loads(words.get("record", "{}")), coding=json.loads(words.get("coding", "null")),
            shapes={k: tuple(int(n) for n in v["shape"]) for k, v in found.items()},
        )  # fmt: skip
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such weights", hint="Check model.weights.") from None
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror})", hint="Check model.weights."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"{path}: is no safetensors file ({error})", hint="Check model.weights, or copy the file again."
        ) from error


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_LONGEST_HEADER, path.stat().st_size):
            raise ValueError("its header is longer than the file")
        found: dict[str, Any] = json.loads(file.read(length))
    ends = [int(v["data_offsets"][1]) for k, v in found.items() if k != "__metadata__"]
    if 8 + length + max(ends, default=0) > path.stat().st_size:
        raise ValueError("it ends before its tensors do")
    return found
