"""Judge what one frame takes on the link between sensor and network."""

from __future__ import annotations

from edgekit.core.outcome import Verdict
from edgekit.gates.protocol import Evidence, Gate


class BytesPerFrame:
    """Bytes of one frame's packed codes."""

    keys = {"bytes_per_frame": "most bytes of one frame on the link from the sensor"}
    most: float | None = None

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare the codec's bytes with the limit."""
        link = evidence.link
        if link is None:
            return Verdict(
                gate=key,
                limit=limit,
                found="no codec",
                state="not judged",
                detail="no pass codes the sensor's signal",
            )
        state = "pass" if link.bytes_per_frame <= limit else "fail"
        detail = (
            f"{link.bits} of {link.sensor_bits} bits a value; {link.sensor_bytes_per_frame} bytes uncoded"
        )
        return Verdict(
            gate=key, limit=limit, found=f"{link.bytes_per_frame} bytes", state=state, detail=detail
        )


PLUGIN: Gate = BytesPerFrame()
