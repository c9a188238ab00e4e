"""Say found values in words, the same in every report and on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.outcome import Latency, Outcome, Rung, Tail, VariantOutcome
from edgekit.core.records import Predicted


def tail_words(tail: Tail) -> str:
    """Return a percentile: its 99 % bound, or what is missing for one."""
    if tail.bound_ms is None:
        return f"n/a (need {tail.need}, have {tail.have})"
    return f"{tail.bound_ms:.2f} ms"


def predicted_words(found: Predicted) -> str:
    """Return a prediction with its band, marked as one."""
    return f"predicted {found.ms:.1f} ms ({found.low_ms:.1f} to {found.high_ms:.1f})"


def latency_words(variant: VariantOutcome) -> str:
    """Return the variant's model latency in short, comparable between variants: measured or predicted."""
    if variant.contest_ms is not None:
        return f"{variant.contest_ms:.2f} ms"
    return predicted_words(variant.predicted) if variant.predicted else "-"


def accuracy_words(variant: VariantOutcome) -> str:
    """Return the variant's accuracy with its drop, a dash where it was not judged."""
    accuracy = variant.accuracy
    if not accuracy:
        return "-"
    drop = f" ({0.0 - accuracy.drop:+.4f})" if accuracy.drop is not None else ""
    return f"{accuracy.value:.4f}{drop}" + (" simulated" if accuracy.simulated else "")


def span_words(span: str) -> str:
    """Return a span's name for people."""
    return {"model": "model", "model+copies": "model + copies", "frame_to_result": "frame to result"}[span]


def headline(outcome: Outcome) -> str:
    """Return the outcome in one sentence."""
    chosen = outcome.variants[0]
    measured = chosen.latency()
    if measured:
        unreal = "emulated, no claim; " if outcome.measured_on.get("emulated") else ""
        speed = f"{measured.median_ms:.1f} ms median ({unreal}{measured.label}, {measured.runs} runs)"
        if outcome.paints:
            ratio = outcome.paints.step_ratio
            speed += f" a step, {ratio[0]:.2f} times as fast as it came" if ratio else " a step"
        elif outcome.speedup and outcome.chosen != outcome.reference:
            speed += f", {outcome.speedup[0]:.2f} times as fast as {outcome.reference}"
    else:
        speed = predicted_words(chosen.predicted) if chosen.predicted else "latency unknown"
    accuracy = chosen.accuracy
    if outcome.paints:
        speed += f", latent error {outcome.paints.error:.3g}"
    kept = f", {accuracy.metric} {accuracy.value:.4f}" if accuracy else ""
    if accuracy and accuracy.drop is not None:
        kept += f" (float32 {accuracy.value + accuracy.drop:.4f})"
    if accuracy and accuracy.where != "this machine":
        kept += f" by {accuracy.where}"
    return f"{chosen.name} on {outcome.title}: {speed}{kept}."


def model_words(outcome: Outcome) -> str:
    """Return what the model is."""
    model = outcome.model
    task = {"raw": "raw outputs"}.get(str(model["task"]), str(model["task"]))
    return f"{model['what']}: {task}, {model['params'] / 1e6:.2f} M parameters, {model['gflops']:.2f} GFLOPs"


def machine_words(outcome: Outcome) -> str:
    """Return what was measured on, in one line."""
    machine = outcome.measured_on
    if not machine:
        return "no latency was measured here"
    isa = " ".join(
        str(f)
        for f in machine.get("isa", [])
        if str(f).startswith(("avx512_", "avx_vnni", "amx", "asimddp", "i8mm"))
    )
    engines = ", ".join(f"{k} {v}" for k, v in machine.get("engines", {}).items())
    cores = machine.get("cores_physical", "?")
    board = machine.get("board") or machine.get("cpu", "?")
    unreal = f"EMULATED by {machine['emulated']}: " if machine.get("emulated") else ""
    return f"{unreal}{board}, {cores} cores {isa}, {engines}; {outcome.when}"


def ladder_words(rungs: Sequence[Rung]) -> str:
    """Return the parity ladder in one line, from the model as it came to the bundle on the device."""
    return ", ".join(f"{r.name} {r.error:.1e}" for r in rungs)


def spread_words(latency: Latency) -> str:
    """Return every published percentile of a span in one line."""
    return ", ".join(f"p{t.share * 100:g} {t.plain_ms:.2f} ms (bound {tail_words(t)})" for t in latency.tails)
