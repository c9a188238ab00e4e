"""Processes of our own Python."""

from __future__ import annotations

import os
import sys


def environment() -> dict[str, str]:
    """Return the environment in which a child finds edgekit where this process does: the agent runs from an archive."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
