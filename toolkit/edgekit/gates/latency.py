"""Judge a latency percentile of the model span."""

from __future__ import annotations

from edgekit.core.outcome import Tail, Verdict
from edgekit.gates.protocol import Evidence, Gate

SHARES = {"latency_p50_ms": 0.5, "latency_p90_ms": 0.9, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}


class LatencyGate:
    """The early-stopping bound is judged; a sample that cannot carry it, or is unstable, is not."""

    keys = {k: f"largest p{s * 100:g} of the model span, milliseconds" for k, s in SHARES.items()}
    most: float | None = None

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare the bound of the percentile with the limit."""
        chosen = evidence.chosen
        latency = chosen.latency()
        if latency is None:
            if chosen.predicted is None:
                detail = evidence.why_no_device or "latency was not measured"
                return Verdict(gate=key, limit=limit, found="-", state="not measured", detail=detail)
            p = chosen.predicted
            detail = f"predicted {p.low_ms:.1f} to {p.high_ms:.1f} ms ({evidence.why_no_device})"
            return Verdict(
                gate=key, limit=limit, found=f"predicted {p.ms:.1f} ms", state="not measured", detail=detail
            )
        tail = next((t for t in latency.tails if t.share == SHARES[key]), None)
        if tail is None or tail.bound_ms is None:
            return Verdict(
                gate=key, limit=limit, found=_missing(tail), state="not judged", detail="too few runs"
            )
        found = f"{tail.bound_ms:.2f} ms"
        if evidence.emulated:
            detail = f"emulated by {evidence.emulated}: this says nothing about the device"
            return Verdict(gate=key, limit=limit, found=found, state="not judged", detail=detail)
        if latency.label == "unstable":
            detail = f"the {latency.runs} runs were unstable (variation above 10 %)"
            return Verdict(gate=key, limit=limit, found=found, state="not judged", detail=detail)
        state = "pass" if tail.bound_ms <= limit else "fail"
        detail = f"99 % bound over {latency.runs} runs, plain {tail.plain_ms:.2f} ms, {latency.label}"
        return Verdict(gate=key, limit=limit, found=found, state=state, detail=detail)


def _missing(tail: Tail | None) -> str:
    return "n/a" if tail is None else f"n/a (need {tail.need}, have {tail.have})"


PLUGIN: Gate = LatencyGate()
