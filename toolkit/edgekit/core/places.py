"""Find edgekit's own folders and the files it ships, in a wheel or in a checkout."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.core.errors import MissingError


def cache_home() -> Path:
    """Return the cache folder: $EDGEKIT_CACHE, else $XDG_CACHE_HOME/edgekit, else ~/.cache/edgekit."""
    if own := os.environ.get("EDGEKIT_CACHE"):
        return Path(own)
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "edgekit"


def config_home() -> Path:
    """Return the folder of the user's own files: $EDGEKIT_CONFIG, else $XDG_CONFIG_HOME/edgekit."""
    if own := os.environ.get("EDGEKIT_CONFIG"):
        return Path(own)
    xdg = os.environ.get("XDG_CONFIG_HOME")
    return (Path(xdg) if xdg else Path.home() / ".config") / "edgekit"


def shipped(name: str) -> Path:
    """Return the path of a shipped file or folder: `recipes`, `models` or `devices.yaml`.

    A wheel carries them in `edgekit/_shipped`; a checkout has them at its top.

    Raises:
        MissingError: Neither place has it.
    """
    package = Path(__file__).resolve().parent.parent
    for root in (package / "_shipped", package.parent.parent):
        if (root / name).exists():
            return root / name
    raise MissingError(
        f"{name} is neither in {package / '_shipped'} nor in {package.parent.parent}",
        hint="Install edgekit again: its shipped files are gone.",
    )
