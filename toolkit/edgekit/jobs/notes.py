"""What a report says of a compile beside its numbers, whatever the model is."""

from __future__ import annotations

from edgekit.backends.trt_inspector import reformat_share
from edgekit.core.outcome import VariantOutcome
from edgekit.jobs.ask import Ask

UNSTEADY = "The warm-up never became steady: this machine is busy or throttles."


def tensorrt_notes(ask: Ask, chosen: VariantOutcome) -> list[str]:
    """Return what there is to know of a variant whose engine is built on the device."""
    target = ask.target
    assert target
    guess = ", the usual release of this module (--jetpack names another)" if target.assumed else ""
    checks = ", ".join(f"{c.name} {c.state}" for c in chosen.checks if c.name != "engine")
    notes = [
        f"Written for {target.words}{guess}.",
        "The TensorRT engine is built on the device; the bundle holds its ONNX file and build.json.",
        f"Checked on this host: {checks}.",
    ]
    if receipt := chosen.receipt:
        notes.append(f"Copies between formats take {reformat_share(receipt):.0%} of the engine's time.")
    return notes
