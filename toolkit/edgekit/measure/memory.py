"""Read how much memory this process has taken at most."""

from __future__ import annotations

import resource


def peak_mb() -> float:
    """Return the peak resident set of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
