"""Read how much memory this process has taken at most."""

from __future__ import annotations

import resource
from pathlib import Path


def current_mb() -> float:
    """Return the resident set of this process now, in MiB; the peak where the kernel does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_mb()
    return pages * resource.getpagesize() / 2**20


def peak_mb() -> float:
    """Return the peak resident set of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
