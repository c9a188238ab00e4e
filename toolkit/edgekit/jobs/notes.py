"""What a report says of a compile beside its numbers, whatever the model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def guard_notes(name: str, facts: Mapping[str, Any]) -> list[str]:
    """Return what became of the guard of a pass, nothing where it had none."""
    guard = facts.get("guard") or {}
    if guard.get("state") == "not judged":
        return [f"{name}: max_drop was not judged, {guard['why']}."]
    if guard.get("state") == "missed" and "max_error" in guard:
        return [
            f"{name}: no choice of layers kept max_error {guard['max_error']:g} on calibration inputs, {guard['kept']:.2g} is the least."
        ]
    if guard.get("state") == "missed":
        return [f"{name}: no choice of layers kept max_drop {guard['max_drop']:g} on training images."]
    if guard.get("exempted"):
        return [f"{name}: {len(guard['exempted'])} layers stay in float to keep accuracy."]
    return []
