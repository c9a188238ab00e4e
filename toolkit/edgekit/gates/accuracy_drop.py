"""Judge the accuracy drop against float32."""

from __future__ import annotations

from edgekit.core.outcome import Verdict
from edgekit.gates.protocol import Evidence, Gate


class AccuracyDrop:
    """The point estimate is judged; the interval is printed beside it."""

    keys = {"accuracy_drop": "largest accuracy drop against float32, a share from 0 to 1"}
    most: float | None = 0.5

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare the chosen variant's drop with the limit."""
        accuracy = evidence.chosen.accuracy
        if accuracy is None or accuracy.drop is None:
            why = evidence.why_no_accuracy or "accuracy was not measured"
            state = "not judged" if evidence.why_no_accuracy else "not measured"
            return Verdict(gate=key, limit=limit, found="-", state=state, detail=why)
        base = accuracy.value + accuracy.drop
        detail = (
            f"{accuracy.metric} {base:.4f} in float32, {accuracy.value:.4f} here, {accuracy.images} images"
        )
        if accuracy.interval:
            detail += f", 95 % interval {accuracy.interval[0]:+.4f} to {accuracy.interval[1]:+.4f}"
        if accuracy.where != "this machine":
            detail += f", by {accuracy.where}"
        drop = accuracy.drop
        if evidence.grows and (grown := evidence.grows.accuracy[-1]) is not None and base - grown > drop:
            # Segments have int8 ranges of their own: what is shipped counts.
            drop = base - grown
            detail += f"; grown out of its segments {grown:.4f}"
        state = "pass" if drop <= limit else "fail"
        if accuracy.simulated:
            state = "not measured"
        return Verdict(gate=key, limit=limit, found=f"{drop:+.4f}", state=state, detail=detail)


PLUGIN: Gate = AccuracyDrop()
