"""Say which code and which tools made a result, for cache keys and provenance."""

from __future__ import annotations

import functools
import importlib.metadata
from pathlib import Path

from edgekit.core.digest import digest_file, digest_value


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package, empty for one that is not there."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


@functools.cache
def code(*rooms: str) -> str:
    """Return a digest over edgekit's own source, so that a changed edgekit repeats its steps.

    Args:
        rooms: Only these rooms, for a step that takes hours and depends on nothing else.
    """
    package = Path(__file__).resolve().parent.parent
    files = sorted(p for room in rooms or ("",) for p in (package / room).rglob("*.py"))
    return digest_value([[p.relative_to(package).as_posix(), digest_file(p)] for p in files])[:16]
