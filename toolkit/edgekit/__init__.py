"""Compile, validate and ship neural networks for edge devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.jobs.api import compile_recipe as compile  # noqa: A004 - `edgekit.compile` reads best
    from edgekit.runtime import Limits, load

__version__ = "0.1.0"
__all__ = ["Limits", "__version__", "compile", "load"]

_PUBLIC = {
    "load": "edgekit.runtime:load",
    "Limits": "edgekit.runtime:Limits",
    "compile": "edgekit.jobs.api:compile_recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
    import importlib

    module, _, function = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), function)
