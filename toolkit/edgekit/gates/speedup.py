"""Judge the speed-up over float32 of the same engine."""

from __future__ import annotations

from edgekit.core.outcome import Verdict
from edgekit.gates.protocol import Evidence, Gate


class Speedup:
    """A ratio of medians on alternating runs: it holds on noisy machines."""

    keys = {"speedup": "least ratio of float32's latency to this one's, same engine, alternating runs"}
    most: float | None = None

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare the measured ratio with the limit."""
        if evidence.speedup is None:
            detail = evidence.why_no_device or "there is no float32 variant of the same engine"
            return Verdict(gate=key, limit=limit, found="-", state="not measured", detail=detail)
        ratio, low, high = evidence.speedup
        if evidence.emulated:
            detail = f"emulated by {evidence.emulated}: this says nothing about the device"
            return Verdict(gate=key, limit=limit, found=f"{ratio:.2f} x", state="not judged", detail=detail)
        reference = evidence.reference.name if evidence.reference else "float32"
        if evidence.paints:
            reference = f"{reference} of the network as it came"
        return Verdict(
            gate=key,
            limit=limit,
            found=f"{ratio:.2f} x",
            state="pass" if ratio >= limit else "fail",
            detail=f"against {reference}, blocks from {low:.2f} to {high:.2f}",
        )


PLUGIN: Gate = Speedup()
