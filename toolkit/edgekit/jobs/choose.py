"""Choose the fastest variant that keeps its accuracy: by measuring here, or by prediction elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.core.errors import ContractError, MissingError, RecipeError
from edgekit.core.outcome import Accuracy, Check, VariantOutcome
from edgekit.core.plugins import pick
from edgekit.core.records import Contract, Predicted
from edgekit.export.torch_onnx import TOLERANCE
from edgekit.jobs.accuracy import accuracy_of
from edgekit.jobs.ask import Ask
from edgekit.jobs.data import Data, timing_frames
from edgekit.jobs.engines_ready import engine_ready
from edgekit.jobs.host_checks import checks_of, parity_of
from edgekit.jobs.trial import DeadError, Trial, held, outputs_error, ratio, share_as_planned
from edgekit.jobs.variants import Lowered, Networks, Wanted, lowered, lowered_from, stand_in, wanted_for
from edgekit.measure.latency import latency
from edgekit.measure.modes import MODES, SPANS
from edgekit.measure.percentiles import median

_FIRST_RUNS, _SECOND_RUNS = 64, 128
# TensorRT computes float32 with 10 bits of mantissa (TF32) from Ampere on, as it comes.
_TF32 = 0.01
# What is further from the fastest than this after the first round goes no further.
_NEAR = 1.5


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and everything that was found on the way.

    Attributes:
        chosen: The default variant.
        reference: Float32 of the same engine.
        others: Further variants that go into the bundle.
        outcomes: All variants, the chosen one first.
        speedup: Against the reference, on alternating runs.
        when: When the final measurement was made.
    """

    chosen: Lowered
    reference: Lowered
    others: tuple[Lowered, ...]
    outcomes: tuple[VariantOutcome, ...]
    speedup: tuple[float, float, float] | None = None
    when: str = ""


@dataclass(kw_only=True)
class _Found:
    """What is known about one variant so far."""

    lowered: Lowered
    samples: tuple[float, ...] = ()
    accuracy: Accuracy | None = None
    parity: float | None = None
    trial: Trial | None = None
    note: str = ""
    hint: str = ""
    predicted: Predicted | None = None
    dead: bool = False
    checks: tuple[Check, ...] = ()


# Says of a variant how much it loses by a measure of the caller's own, and why that is too much (empty where it is not).
Refuse = Callable[[Lowered], tuple[float, str]]


@dataclass(frozen=True, kw_only=True)
class _Field:
    """Everything a choice looks at."""

    ask: Ask
    data: Data | None
    contract: Contract
    dense: Lowered | None = None
    refused: Refuse | None = None
    found: dict[str, _Found] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be judged: the labels are what the model answers."""
        return self.data is not None and self.contract.answers.task == self.data.task

    @property
    def files(self) -> list[Path]:
        """Frames that timings and parity draw from."""
        return timing_frames(self.data, self.contract)

    def reference(self, one: Lowered) -> Lowered:
        """Return float32 of the same engine and threads."""
        same = replace(one.wanted, precision="fp32", style="")
        return self.found[same.name].lowered


def choose(ask: Ask, networks: Networks, data: Data | None, *, refused: Refuse | None = None) -> Choice:
    """Return the choice, measured on this machine.

    Args:
        ask: The compile.
        networks: After the passes.
        data: Labelled samples.
        refused: A further judge of variants, for what is no accuracy on labelled samples.

    Raises:
        ContractError: A float32 variant does not give what the network gives.
        MissingError: No engine of the device is installed here.
    """
    field_ = replace(_open(ask, networks, data), refused=refused)
    first = held(
        ask, {n: f.lowered for n, f in field_.found.items() if not f.dead}, field_.files, round_name="all variants",
        runs=_FIRST_RUNS,
    )  # fmt: skip
    for name, trial in first.by_name.items():
        field_.found[name].samples = trial.spans["model"]
    names = _second_round(field_)
    chosen = _keeps_accuracy(field_, names)
    return _final(field_, chosen)


def _open(ask: Ask, networks: Networks, data: Data | None) -> _Field:
    field_ = _Field(ask=ask, data=data, contract=networks.float32.contract, dense=_dense(ask, networks))
    for wanted in wanted_for(ask, networks):
        field_.found[wanted.name] = one = _Found(lowered=lowered(ask, networks, wanted))
        _build(ask, one)
    if not field_.found:
        engines = " or ".join(ask.profile.backends)
        raise MissingError(
            f"{ask.profile.name}: neither of its engines is installed here ({engines})",
            hint="Run: pip install 'edgekit[host]'",
        )
    return field_


def _dense(ask: Ask, networks: Networks) -> Lowered | None:
    """Return the network before passes that cost accuracy, in float32: what losses are held against."""
    if networks.dense is None:
        return None
    threads = int(ask.passport["cores_physical"]) if ask.here else 0
    wanted = Wanted(backend="onnxruntime", precision="fp32", threads=threads)
    return lowered_from(ask, networks.dense, None, wanted)


def _build(ask: Ask, one: _Found) -> None:
    """Have a variant's engine built where it needs one; without it the variant is out, float32 excepted."""
    try:
        one.checks = engine_ready(ask, one.lowered)
    except ContractError as error:
        if one.lowered.wanted.precision == "fp32":
            raise
        one.dead, one.note = True, error.message


def _second_round(field_: _Field) -> list[str]:
    """Measure those near the fastest again; return all names that may be chosen, fastest first."""
    ask, found = field_.ask, field_.found
    alive = [n for n, f in found.items() if not f.dead]
    allowed = [n for n in alive if _may_win(ask, found[n].lowered)]
    _refuse_none(ask, allowed, [f.note for f in found.values() if f.dead and _may_win(ask, f.lowered)])
    fastest = min(median(found[n].samples) for n in allowed)
    near = [n for n in allowed if median(found[n].samples) <= _NEAR * fastest]
    again = held(
        ask, {n: found[n].lowered for n in near}, field_.files, round_name="the nearest", runs=_SECOND_RUNS
    )
    for name in near:
        found[name].samples += again.by_name[name].spans["model"]
        _judge(field_, name)
    far = [n for n in allowed if n not in near]
    for name in alive:
        if name not in allowed:
            found[name].note = f"beside it; {_asked(ask)} was asked for"
        elif name not in near:
            found[name].note = f"more than {_NEAR} times slower than the fastest"
    order = {n: median(found[n].samples) for n in (*near, *far)}
    return [*sorted(near, key=order.__getitem__), *sorted(far, key=order.__getitem__)]


def _may_win(ask: Ask, one: Lowered) -> bool:
    """Whether a variant is what was asked for, rather than a reference or what runs until an engine is built."""
    wanted = one.wanted
    return ask.only_precision in {"", wanted.precision} and ask.only_backend in {"", wanted.backend}


def _asked(ask: Ask) -> str:
    return " ".join(w for w in (ask.only_backend, ask.only_precision) if w)


def _refuse_none(ask: Ask, allowed: Sequence[object], dead: Sequence[str] = ()) -> None:
    if not allowed and dead:
        raise ContractError(f"{_asked(ask)}: {dead[0]}", hint="Ask for another precision or engine.")
    if not allowed:
        raise RecipeError(
            f"--precision: no engine here runs {ask.only_precision} for {ask.profile.name}",
            hint="This CPU may lack the instructions, or a pass is missing (to-fp16, quantize-int8).",
        )


def _judge(field_: _Field, name: str) -> None:
    """Find parity and, with labels, the accuracy of one variant."""
    one = field_.found[name]
    reference = field_.reference(one.lowered)
    try:
        one.parity = _parity(field_, one.lowered)
    except DeadError as error:
        one.dead, one.note, one.hint = True, error.message, error.hint
        return
    if field_.data and field_.labelled:
        _compare(field_, one, one.lowered, reference, simulated=False)
    one.note = ""


def _parity(field_: _Field, one: Lowered) -> float:
    """Return the output error against float32 in onnxruntime; float32 itself must keep to a limit."""
    plain = next(f.lowered for f in field_.found.values() if f.lowered.wanted.precision == "fp32")
    judge = next(
        (
            f.lowered
            for f in field_.found.values()
            if f.lowered.wanted.precision == "fp32" and f.lowered.wanted.backend == "onnxruntime"
        ),
        plain,
    )
    error = outputs_error(field_.ask, judge, one, field_.files)
    allowed = _TF32 if one.wanted.backend == "tensorrt" else TOLERANCE
    if one.wanted.precision == "fp32" and not error <= allowed:
        raise ContractError(
            f"{one.wanted.plain}: its outputs differ from {judge.wanted.plain} by {error:.2e} of the largest value",
            hint=f"{allowed:g} is allowed in float32. Report it with the model.",
        )
    return error


def _keeps_accuracy(field_: _Field, names: Sequence[str]) -> str:
    """Return the fastest variant within the accuracy gate; the one that loses least where none is."""
    limit = field_.ask.checked.gates(field_.ask.profile.name).get("accuracy_drop")
    judged = []
    for name in names:
        one = field_.found[name]
        if one.parity is None and not one.dead:
            _judge(field_, name)
        if one.dead:
            continue
        if field_.refused:
            loss, one.note = field_.refused(one.lowered)
            if not one.note:
                return name
            judged.append((loss, name))
            continue
        if limit is None or not field_.data or not field_.labelled:
            return name
        assert one.accuracy
        assert one.accuracy.drop is not None
        if one.accuracy.drop <= limit:
            return name
        one.note = f"loses {one.accuracy.drop:.4f}, {limit:g} is allowed"
        judged.append((one.accuracy.drop, name))
    if not judged:
        first = field_.found[names[0]]
        raise ContractError(first.note, hint=first.hint)
    return min(judged)[1]


def _final(field_: _Field, name: str) -> Choice:
    """Measure the winner and its float32 reference in the recipe's mode, alternating."""
    ask, one = field_.ask, field_.found[name]
    reference = field_.reference(one.lowered)
    same = reference.digest == one.lowered.digest
    entrants = {"chosen": one.lowered} if same else {"chosen": one.lowered, "reference": reference}
    mode = MODES[ask.mode]
    image = one.lowered.artifact.contract.frames is not None and bool(field_.files)
    with_answers = image and one.lowered.artifact.contract.answers.task != "raw"
    spans = SPANS if with_answers else SPANS[:2]
    trials = held(
        ask, entrants, field_.files, round_name=f"{ask.mode} bench", runs=mode.runs, seconds=mode.seconds,
        limit_s=mode.limit_s, spans=spans, receipts=True,
    )  # fmt: skip
    one.trial = trials.by_name["chosen"]
    speedup = None
    if not same:
        other = field_.found[reference.wanted.name]
        other.trial = trials.by_name["reference"]
        if other.parity is None:
            other.parity = _parity(field_, reference)
        speedup = ratio(other.trial.spans["model"], one.trial.spans["model"])
    if field_.data and field_.labelled and field_.found[reference.wanted.name].accuracy is None:
        _judge(field_, reference.wanted.name)
    if one.lowered.wanted.backend == "tensorrt":
        one.checks += checks_of(ask, one.lowered)
    others = _others(field_, one.lowered)
    outcomes = [_outcome(field_, f) for f in field_.found.values() if f is not one]
    outcomes.sort(key=lambda o: o.contest_ms or 1e9)
    return Choice(
        chosen=one.lowered, reference=reference, others=others, speedup=speedup or (1.0, 1.0, 1.0),
        outcomes=(_outcome(field_, one), *outcomes), when=trials.when,
    )  # fmt: skip


def _others(field_: _Field, chosen: Lowered) -> tuple[Lowered, ...]:
    """Return for each other engine its fastest variant whose accuracy is proven, float32 at the least."""
    found = []
    limit = field_.ask.checked.gates(field_.ask.profile.name).get("accuracy_drop", 0.0)
    for backend in field_.ask.profile.backends:
        fits = [
            f
            for f in field_.found.values()
            if f.lowered.wanted.backend == backend
            and f.samples
            and (_proven(f, limit) or f.lowered.wanted.precision == "fp32")
        ]
        if fits and backend != chosen.wanted.backend:
            best = min(fits, key=lambda f: median(f.samples))
            if best.parity is None:
                best.parity = _parity(field_, best.lowered)
            found.append(best.lowered)
    return tuple(found)


def _proven(one: _Found, limit: float) -> bool:
    return one.accuracy is not None and one.accuracy.drop is not None and one.accuracy.drop <= limit


def _outcome(field_: _Field, one: _Found) -> VariantOutcome:
    wanted, trial = one.lowered.wanted, one.trial
    publishes = MODES[field_.ask.mode].publishes
    if trial:
        latencies = tuple(latency(trial.spans[s], s, publishes) for s in SPANS if s in trial.spans)
    else:
        latencies = (latency(one.samples, "model", (0.5, 0.9)),) if one.samples else ()
    return VariantOutcome(
        name=wanted.plain, backend=wanted.backend, precision=wanted.precision, style=wanted.style,
        threads=wanted.threads, size_mb=round(one.lowered.size_mb, 3), latencies=latencies,
        predicted=one.predicted, contest_ms=median(one.samples) if one.samples else None, accuracy=one.accuracy, parity=one.parity, note=one.note,
        memory_mb=round(trial.facts["memory_mb"], 1) if trial else None,
        load_ms=round(trial.facts["load_ms"], 1) if trial else None,
        first_ms=round(trial.facts["first_ms"], 1) if trial else None,
        steady=trial.steady if trial else True,
        receipt=trial.receipt if trial else (),
        share=share_as_planned(trial.receipt) if trial else None, checks=one.checks,
    )  # fmt: skip


def predicted_choice(
    ask: Ask, networks: Networks, data: Data | None, predictions: Mapping[str, Predicted], *, refused: Refuse | None = None
) -> Choice:  # fmt: skip
    """Return the choice for a device that is not this machine: the shortest prediction wins.

    Args:
        ask: The compile.
        networks: After the passes.
        data: Labelled images; accuracy is judged with the same engine here, or in a simulation.
        predictions: Latency by variant name such as "tensorrt-int8".
        refused: A further judge of variants, for what is no accuracy on labelled samples.
    """
    field_ = _Field(
        ask=ask, data=data, contract=networks.float32.contract, dense=_dense(ask, networks), refused=refused
    )
    for wanted in wanted_for(ask, networks):
        first = pick("lowering", wanted.backend, what="backend").styles[0]
        if wanted.precision != "int8" or wanted.style == first:
            made = _Found(lowered=lowered(ask, networks, wanted), predicted=predictions.get(wanted.plain))
            field_.found[wanted.name] = made
    own = ask.only_backend or next(iter(ask.profile.backends))
    pool = [
        f for f in field_.found.values() if f.lowered.wanted.backend == own or not ask.profile.builds_engines
    ]
    pool = [f for f in pool if ask.only_precision in {"", f.lowered.wanted.precision}]
    _refuse_none(ask, pool)
    for one in field_.found.values():
        if one.lowered.wanted.backend == "tensorrt":
            _parity_elsewhere(field_, networks, one)
    chosen = _shortest_prediction(field_, networks, pool)
    if chosen.lowered.wanted.backend == "tensorrt":
        chosen.checks = checks_of(ask, chosen.lowered)
    reference = field_.reference(chosen.lowered)
    others = tuple(
        f.lowered for f in field_.found.values()
        if f.lowered.wanted.precision == "fp32" and f.lowered.wanted.backend not in {chosen.lowered.wanted.backend, "tensorrt"}
    )  # fmt: skip
    outcomes = [_outcome(field_, f) for f in field_.found.values() if f is not chosen]
    return Choice(
        chosen=chosen.lowered, reference=reference, others=others,
        outcomes=(_outcome(field_, chosen), *outcomes),
    )  # fmt: skip


def _parity_elsewhere(field_: _Field, networks: Networks, one: _Found) -> None:
    """Find how far a TensorRT file's outputs are from float32's; a type its values do not fit into ends it."""
    try:
        one.parity = parity_of(field_.ask, networks, one.lowered, field_.files)
    except ContractError as error:
        if one.lowered.wanted.precision == "fp32":
            raise
        one.dead, one.note = True, f"not chosen: {error.message} (the graph, on this host)"


def _shortest_prediction(field_: _Field, networks: Networks, pool: Sequence[_Found]) -> _Found:
    """Return the variant predicted fastest that keeps the accuracy gate, else the one that loses least."""
    limit = field_.ask.checked.gates(field_.ask.profile.name).get("accuracy_drop")
    lost: list[tuple[float, _Found]] = []
    alive = [f for f in pool if not f.dead]
    if not alive:
        raise ContractError(pool[0].note, hint="Ask for another --precision, or for --precision fp32.")
    for one in sorted(alive, key=lambda f: f.predicted.ms if f.predicted else 1e9):
        if field_.refused:
            loss, one.note = field_.refused(one.lowered)
            if not one.note:
                return one
            lost.append((loss, one))
            continue
        _accuracy_elsewhere(field_, networks, one)
        drop = one.accuracy.drop if one.accuracy else None
        if limit is None or drop is None or drop <= limit:
            return one
        one.note = f"loses {drop:.4f}, {limit:g} is allowed"
        lost.append((drop, one))
    return min(lost, key=lambda pair: pair[0])[1]


def _accuracy_elsewhere(field_: _Field, networks: Networks, one: _Found) -> None:
    """Judge accuracy with the device's own engine here, or with a simulation of its int8."""
    ask, wanted = field_.ask, one.lowered.wanted
    if not field_.data or not field_.labelled:
        return
    if wanted.backend != "tensorrt":
        _compare(field_, one, one.lowered, field_.reference(one.lowered), simulated=False)
    elif wanted.precision != "fp32":
        # The graph that TensorRT reads, run by other kernels.
        own, float32 = (
            stand_in(ask, networks, replace(wanted, precision=p)) for p in (wanted.precision, "fp32")
        )
        _compare(field_, one, own, float32, simulated=True)


def _compare(field_: _Field, one: _Found, own: Lowered, float32: Lowered, *, simulated: bool) -> None:
    """Judge a variant against float32, and keep float32's own accuracy for the report."""
    assert field_.data
    base = field_.found[field_.reference(one.lowered).wanted.name]
    if field_.dense:
        base.accuracy = accuracy_of(field_.ask, field_.data, float32, field_.dense, simulated=simulated)
    else:
        found = accuracy_of(field_.ask, field_.data, float32, None, simulated=simulated)
        base.accuracy = replace(found, drop=0.0, interval=(0.0, 0.0))
    if own.digest != float32.digest:
        truth = field_.dense or float32
        one.accuracy = accuracy_of(field_.ask, field_.data, own, truth, simulated=simulated)
