"""Judge how far the chosen variant's raw outputs are from float32's."""

from __future__ import annotations

from edgekit.core.outcome import Verdict
from edgekit.gates.protocol import Evidence, Gate


class Parity:
    """Largest output error on real samples, relative to the output's largest value."""

    keys = {"parity": "largest raw output error against float32, relative to the largest output"}
    most: float | None = None

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare the error with the limit."""
        error = evidence.chosen.parity
        if error is None:
            detail = evidence.why_no_device or "outputs were not compared"
            return Verdict(gate=key, limit=limit, found="-", state="not measured", detail=detail)
        state = "pass" if error <= limit else "fail"
        detail = "raw outputs against the float32 graph in onnxruntime"
        return Verdict(gate=key, limit=limit, found=f"{error:.2e}", state=state, detail=detail, exit_code=4)


PLUGIN: Gate = Parity()
