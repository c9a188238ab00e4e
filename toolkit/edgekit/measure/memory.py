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
    # Linux hands the peak of whoever started a process on in ru_maxrss: a compile that trained before would lend its
    # workers a gigabyte. VmHWM begins anew with the program.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(x for x in lines if x.startswith("VmHWM:")).split()[1]) / 1024
    except (OSError, StopIteration, ValueError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
