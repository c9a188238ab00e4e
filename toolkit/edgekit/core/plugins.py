"""Find plug-ins by file name, and those of other packages by entry point."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import pkgutil
from typing import Any

from edgekit.core.errors import RecipeError


@functools.cache
def family(room: str) -> dict[str, Any]:
    """Return every plug-in of a room, such as "passes", by name.

    A module of the room that ends with `PLUGIN: Kind = …` is one; `quantize_int8.py` is
    `quantize-int8`. Other packages add theirs under the entry-point group `edgekit.<room>`.
    """
    package = importlib.import_module(f"edgekit.{room}")
    found: dict[str, Any] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"edgekit.{room}.{info.name}")
        if hasattr(module, "PLUGIN"):
            found[info.name.replace("_", "-")] = module.PLUGIN
    for point in importlib.metadata.entry_points(group=f"edgekit.{room}"):
        found[point.name] = point.load()
    return dict(sorted(found.items()))


def pick(room: str, name: str, *, what: str) -> Any:
    """Return plug-in `name` of a room.

    Raises:
        RecipeError: There is none of that name; the message suggests the nearest.
    """
    found = family(room)
    if name in found:
        return found[name]
    raise RecipeError(f"{what}: no {name!r}", hint=suggestion(name, found))


def suggestion(word: str, words: Any) -> str:
    """Return "Did you mean …?" for the nearest of `words`, else the list of them."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(sorted(words))}."
