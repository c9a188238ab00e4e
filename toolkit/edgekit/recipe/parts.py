"""Read one part of a recipe although others may be wrong."""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

from edgekit.forms.read import Form

Part = TypeVar("Part")


def sound(form: Form, key: str, kind: type[Part]) -> Part | None:
    """Return one part of the recipe with its unknown keys left out, None where a value is wrong.

    Faults are noted by the check of the whole recipe, not here.
    """
    given = form.value.get(key) or {}
    if not isinstance(given, dict):
        return None
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return Form(form.path, given, {}).record(kind, {k: v for k, v in given.items() if k in known})
