"""Judge whether layers really ran at the precision that was planned."""

from __future__ import annotations

from edgekit.core.outcome import Verdict
from edgekit.gates.protocol import Evidence, Gate


class PrecisionShare:
    """Weighted by time, from the engine's own profile; a contract, so failing ends with 4."""

    keys = {"precision_share": "least share of the time in reduced-precision layers that really ran reduced"}
    most: float | None = 1.0

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare the receipt's share with the limit."""
        chosen = evidence.chosen
        if chosen.precision == "fp32":
            return Verdict(
                gate=key, limit=limit, found="-", state="pass", detail="nothing but float32 was asked for"
            )
        if chosen.share is None:
            detail = evidence.why_no_device or "the engine gave no receipt"
            return Verdict(gate=key, limit=limit, found="-", state="not measured", detail=detail)
        state = "pass" if chosen.share >= limit else "fail"
        detail = f"of the time in layers planned as {chosen.precision}, by the engine's profile"
        return Verdict(
            gate=key, limit=limit, found=f"{chosen.share:.3f}", state=state, detail=detail, exit_code=4
        )


PLUGIN: Gate = PrecisionShare()
