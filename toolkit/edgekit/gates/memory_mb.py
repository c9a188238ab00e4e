"""Judge how much memory the chosen variant takes."""

from __future__ import annotations

from edgekit.core.outcome import Verdict
from edgekit.gates.protocol import Evidence, Gate


class MemoryMb:
    """Growth of the process's peak resident set by loading and running."""

    keys = {"memory_mb": "largest growth of peak memory by loading and running, MiB"}
    most: float | None = None

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare the growth with the limit."""
        grown = evidence.chosen.memory_mb
        if grown is None:
            detail = evidence.why_no_device or "memory was not measured"
            return Verdict(gate=key, limit=limit, found="-", state="not measured", detail=detail)
        state = "pass" if grown <= limit else "fail"
        detail = "growth of the peak resident set in a process of its own"
        return Verdict(gate=key, limit=limit, found=f"{grown:.0f} MiB", state=state, detail=detail)


PLUGIN: Gate = MemoryMb()
