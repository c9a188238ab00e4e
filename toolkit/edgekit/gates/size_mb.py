"""Judge the size of the chosen variant's files."""

from __future__ import annotations

from edgekit.core.outcome import Verdict
from edgekit.gates.protocol import Evidence, Gate


class SizeMb:
    """Files of the chosen variant, in units of 1,000,000 bytes."""

    keys = {"size_mb": "largest size of the chosen variant's files, megabytes"}
    most: float | None = None

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare the size with the limit."""
        size = evidence.chosen.size_mb
        state = "pass" if size <= limit else "fail"
        return Verdict(
            gate=key, limit=limit, found=f"{size:.2f} MB", state=state, detail=evidence.chosen.name
        )


PLUGIN: Gate = SizeMb()
