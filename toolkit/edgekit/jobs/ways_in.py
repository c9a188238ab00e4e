"""Say what would be nearer to a missed latency gate: other image sizes, other precisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.errors import EdgekitError
from edgekit.core.outcome import VariantOutcome, WayIn
from edgekit.core.records import Network, QuantPlan
from edgekit.gates.latency import SHARES
from edgekit.graph.onnx_file import read_onnx
from edgekit.jobs.ask import Ask
from edgekit.jobs.choose import Choice
from edgekit.jobs.data import Data, timing_frames
from edgekit.jobs.elsewhere import predictions
from edgekit.jobs.engines_ready import engine_ready
from edgekit.jobs.model import Loaded, behind_sensor, load_model
from edgekit.jobs.trial import held
from edgekit.jobs.variants import Lowered, lowered_from
from edgekit.measure.percentiles import percentile
from edgekit.models.records import Source

SIDES = (640, 512, 416, 320)
_RUNS = 64


@dataclass(frozen=True, kw_only=True)
class Missed:
    """The latency gate that was missed by most."""

    share: float
    limit_ms: float


def missed_gate(limits: Mapping[str, float], choice: Choice) -> Missed | None:
    """Return the latency limit that the chosen variant misses by most, None where it keeps all."""
    worst: tuple[float, Missed] | None = None
    chosen = choice.outcomes[0]
    for key, limit in limits.items():
        if key not in SHARES:
            continue
        found = _found_ms(chosen, SHARES[key])
        if found is not None and found > limit and (worst is None or found / max(limit, 1e-9) > worst[0]):
            worst = (found / max(limit, 1e-9), Missed(share=SHARES[key], limit_ms=limit))
    return worst[1] if worst else None


def _found_ms(outcome: VariantOutcome, share: float) -> float | None:
    latency = outcome.latency()
    if latency:
        return _judged_ms(latency.samples_ms, share)
    return outcome.predicted.ms if outcome.predicted else None


def _judged_ms(samples_ms: Sequence[float], share: float) -> float:
    """Return what a gate would judge: the bound, or the plain percentile where there is none."""
    found = percentile(samples_ms, share)
    return found.plain_ms if found.bound_ms is None else found.bound_ms


def ways_in(
    ask: Ask,
    source: Source,
    loaded: Loaded,
    plan: QuantPlan | None,
    data: Data | None,
    choice: Choice,
    missed: Missed,
) -> tuple[WayIn, ...]:
    """Return what would be nearer, fastest last; measured here, predicted for another device."""
    found = [*_precisions(choice, missed)]
    # A sensor has one size, and other ones are no way in.
    if not behind_sensor(ask):
        found += (
            _sizes_here(ask, source, loaded, plan, data, choice, missed)
            if ask.here
            else _sizes_there(ask, loaded, choice, missed)
        )
    return tuple(sorted(found, key=lambda w: -w.ms))


def _precisions(choice: Choice, missed: Missed) -> list[WayIn]:
    rows, seen = [], {choice.outcomes[0].name}
    for outcome in choice.outcomes[1:]:
        ms = _found_ms(outcome, missed.share)
        if ms is None or outcome.name in seen:
            continue
        seen.add(outcome.name)
        accuracy = outcome.accuracy
        words = f"{accuracy.metric} {accuracy.value:.4f}" if accuracy else ""
        rows.append(_way(outcome.name, ms, missed, measured=outcome.latency() is not None, accuracy=words))
    return rows


def _way(what: str, ms: float, missed: Missed, *, measured: bool, accuracy: str = "") -> WayIn:
    how = "measured" if measured else "predicted"
    return WayIn(
        what=what, ms=round(ms, 3), latency=f"p{missed.share * 100:g} {ms:.2f} ms, {how}", accuracy=accuracy,
        fits=ms <= missed.limit_ms,
    )  # fmt: skip


def _side(network: Network) -> int:
    shape = network.contract.inputs[0].shape
    return shape[-1] if len(shape) == 4 else 0


def _sizes_here(
    ask: Ask,
    source: Source,
    loaded: Loaded,
    plan: QuantPlan | None,
    data: Data | None,
    choice: Choice,
    missed: Missed,
) -> list[WayIn]:
    now = _side(loaded.network)
    # The fp16 graph of another size would need its own run of the passes.
    if not now or choice.chosen.wanted.precision == "fp16":
        return []
    sides = [s for s in SIDES if s != now]
    if not loaded.other_sizes:
        base = _found_ms(choice.outcomes[0], missed.share) or 0.0
        return [
            _way(f"imgsz {s} (its size is fixed in the file)", base * (s / now) ** 2, missed, measured=False)
            for s in sides
        ]
    entrants: dict[str, Lowered] = {}
    for side in sides:
        try:
            entrants[str(side)] = _at(ask, source, plan, data, choice, side)
        except EdgekitError:
            # A size this model cannot take is no way in.
            continue
    files = timing_frames(data, loaded.network.contract)
    trials = held(ask, entrants, files, round_name="other sizes", runs=_RUNS)
    rows = []
    for name, trial in trials.by_name.items():
        ms = _judged_ms(trial.spans["model"], missed.share)
        rows.append(
            _way(
                f"imgsz {name}, {choice.chosen.wanted.plain}",
                ms,
                missed,
                measured=True,
                accuracy="not measured at this size",
            )
        )
    return rows


def _at(
    ask: Ask, source: Source, plan: QuantPlan | None, data: Data | None, choice: Choice, side: int
) -> Lowered:
    samples: Sequence[object] = data.calibration if data else ()
    other = load_model(ask, source, samples, data.names if data else (), side=side)  # type: ignore[arg-type]
    wanted = choice.chosen.wanted
    used = plan if plan and _fits(plan, other.network) else None
    if wanted.precision == "int8" and used is None:
        raise EdgekitError("the plan's layers have other names at this size")
    found = lowered_from(ask, other.network, used, wanted)
    engine_ready(ask, found)
    return found


def _fits(plan: QuantPlan, network: Network) -> bool:
    names = {n.name for n in read_onnx(network.main.path).graph.node}
    return plan.int8_layers() <= names


def _sizes_there(ask: Ask, loaded: Loaded, choice: Choice, missed: Missed) -> list[WayIn]:
    now = _side(loaded.network)
    name = choice.outcomes[0].name
    if not now:
        return []
    rows = []
    for side in (s for s in SIDES if s != now):
        found = predictions(ask.profile, loaded, scale=(side / now) ** 2).get(name)
        if found:
            rows.append(_way(f"imgsz {side}, {name}", found.ms, missed, measured=False))
    return rows
