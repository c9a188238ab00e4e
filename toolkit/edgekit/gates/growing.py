"""Judge how soon a growing model answers, and how long requests wait while it grows."""

from __future__ import annotations

from edgekit.core.outcome import Grows, Verdict
from edgekit.gates.protocol import Evidence, Gate


class Growing:
    """Time to the first answer, and the longest stall."""

    keys = {
        "first_answer_ms": "most milliseconds from load to the first answer of a progressively loaded model",
        "max_stall_ms": "most milliseconds that a request may take longer while such a model grows",
    }
    most: float | None = None

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare what was measured on the device with the limit."""
        grows = evidence.grows
        if grows is None:
            detail = "the chosen variant is loaded whole; progressive-load cuts it"
            return Verdict(gate=key, limit=limit, found="not growing", state="not judged", detail=detail)
        found, detail = _first(grows) if key == "first_answer_ms" else _stall(grows)
        if found is None:
            why = evidence.why_no_device or "not measured"
            return Verdict(gate=key, limit=limit, found="-", state="not measured", detail=why)
        if evidence.emulated:
            return Verdict(
                gate=key,
                limit=limit,
                found=f"{found:.3g} ms",
                state="not judged",
                detail=f"on {evidence.emulated}, an emulator",
            )
        state = "pass" if found <= limit else "fail"
        return Verdict(gate=key, limit=limit, found=f"{found:.3g} ms", state=state, detail=detail)


def _first(grows: Grows) -> tuple[float | None, str]:
    whole = f"; the whole model {grows.whole_ms:.3g} ms" if grows.whole_ms is not None else ""
    disk = "from a cold disk" if grows.cold else "with files in the page cache"
    return grows.first_ms, f"median of {grows.runs} fresh processes, {disk}, hashes checked{whole}"


def _stall(grows: Grows) -> tuple[float | None, str]:
    if grows.stall_ms is None:
        return None, ""
    beside = f"; without loading {grows.control_ms[2]:.3g} ms" if grows.control_ms else ""
    return grows.stall_ms[
        2
    ], f"largest of {grows.requests[0]} requests at {grows.hz:g} a second while it grew{beside}"


PLUGIN: Gate = Growing()
