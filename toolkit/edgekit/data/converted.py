"""What a conversion of a published data set wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        data: The `data.yaml`.
        images: Number by split; of signals, windows.
        boxes: Number by split; of signals none.
        left_out: Boxes or windows of the source that are no objects or no activity to find (ignored regions, other
            classes, times without a label).
    """

    data: Path
    images: Mapping[str, int]
    boxes: Mapping[str, int]
    left_out: int


def refuse_taken(out: Path) -> None:
    """Refuse to write where something is already.

    Raises:
        RecipeError: `out` is a file or a folder with something in it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(f"{out}: is there already", hint="Choose a new folder or remove this one.")
