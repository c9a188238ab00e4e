"""Compare two builds: run them in turns here or on a device, or compare stored results."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.board.work import carry_out
from edgekit.core.comparison import Comparison
from edgekit.core.errors import RecipeError
from edgekit.core.files import link_or_copy
from edgekit.core.result import Result
from edgekit.devices.agents import understood
from edgekit.devices.connect import agent_of
from edgekit.devices.profiles import Profile
from edgekit.forms.stored import rebuilt
from edgekit.jobs.bench import Request, order_of, refuse_without_engine, taken
from edgekit.jobs.orders import now
from edgekit.jobs.parcel import Parcel, parcel_of
from edgekit.measure.blocks import BAND_C, RUNS, Blocks, cut
from edgekit.measure.versus import compared
from edgekit.results.store import Store

_LEAST_BLOCKS = 5


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models to compare by running them.

    Attributes:
        a: Bundle or model file, the reference.
        b: What is judged.
        span: What to time.
        data: Images for the inputs.
        backend: For ONNX files.
        imgsz: For ONNX files with a free size.
        variants: Of bundles.
        wait: Wait for a board that is taken.
    """

    a: Path
    b: Path
    span: str = "model"
    data: str = ""
    backend: str = ""
    imgsz: int = 0
    variants: tuple[str, str] = ("", "")
    wait: bool = False


def compare_runs(pair: Pair, profile: Profile | None) -> Comparison:
    """Return the comparison of two models, run in turns on a device, or here where there is none.

    Raises:
        EdgekitError: See its kinds and exit codes.
    """
    with ExitStack() as stack:
        agent = agent_of(profile) if profile else None
        hello = agent.hello() if agent else None
        arrays = hello is not None and not hello["decoder"]
        one, two = (stack.enter_context(_parcel(pair, p, arrays=arrays)) for p in (pair.a, pair.b))
        parcel = _joined(one, two, pair)
        request = Request(what=pair.a, settings={"spans": [pair.span]}, variant=pair.variants[0])
        order = order_of(parcel, request, profile.name if profile else "local", do="compare")
        order = replace(order, other=_other(two, pair))
        if agent is None or hello is None or profile is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for path, source in parcel.sources.items():
                link_or_copy(source, folder / path)
            with taken(order, wait=pair.wait):
                return rebuilt(carry_out(order, folder), Comparison)
        for each in (one, two):
            refuse_without_engine(profile.name, hello, each)
        body = agent.done(order, parcel.sources, wait=pair.wait)
    with understood(profile.name):
        return rebuilt(body, Comparison)


def _parcel(pair: Pair, what: Path, *, arrays: bool) -> Any:
    return parcel_of(
        what, data=pair.data, backend=pair.backend if what.suffix == ".onnx" else "",
        imgsz=pair.imgsz if what.suffix == ".onnx" else 0, arrays=arrays,
    )  # fmt: skip


def _joined(one: Parcel, two: Parcel, pair: Pair) -> Parcel:
    """Return A's parcel with B's files under `b/`; inputs come from A's frames for both."""
    note = one.note
    if one.subject["sha256"] == two.subject["sha256"] and pair.variants[0] == pair.variants[1]:
        note = "A and B are the same"
    if one.frames and not (two.frames or (two.artifact and two.artifact["contract"]["frames"])):
        one, note = replace(one, frames=()), "inputs are random: B declares no pre-processing"
    sources = {**one.sources, **{f"b/{p}": f for p, f in two.sources.items()}}
    return replace(one, sources=sources, note=note)


def _other(two: Parcel, pair: Pair) -> dict[str, Any]:
    artifact = {**two.artifact, "main": f"b/{two.artifact['main']}"} if two.artifact else {}
    bundle = f"b/{two.bundle}" if two.bundle else ""
    return {"bundle": bundle, "artifact": artifact, "variant": pair.variants[1], "subject": two.subject}


def compare_stored(store: Store, a: str, b: str, *, span: str = "", force: bool) -> Comparison:
    """Return the comparison of two stored results by blocks of their runs.

    Args:
        store: Where they are.
        a: Id or file of the reference.
        b: Of what is judged.
        span: To compare; the first of A where empty.
        force: Compare them although machines or settings differ.

    Raises:
        RecipeError: They were taken on unequal machines or in unequal ways (unless `force`), or have too few runs.
    """
    one, two = store.load(a), store.load(b)
    span = span or (one.spans[0].span if one.spans else "")
    found = [r.latency(span) if span else None for r in (one, two)]
    if not all(found):
        raise RecipeError(f"{a}, {b}: {span or 'a span'} was not measured in both", hint="Run both with it.")
    differences = differences_of(one, two)
    if differences and not force:
        raise RecipeError(
            "\n".join(["the results differ in more than the build:", *differences]),
            hint="Measure both alike (edgekit compare BUNDLE BUNDLE runs them in turns), or use --force.",
        )
    sides = [cut(x.samples_ms) for x in found if x]
    if min(map(len, sides)) < _LEAST_BLOCKS:
        have = min(x.runs for x in found if x)
        raise RecipeError(
            f"{a}, {b}: {have} runs make fewer than {_LEAST_BLOCKS} blocks of {RUNS}",
            hint="Measure in mode standard, or let edgekit compare run both.",
        )
    blocks = Blocks(a=sides[0], b=sides[1])
    blocks.notes.append("taken at different times: what changed between them is not in the interval")
    return compared(
        blocks, (one.subject, two.subject), span=span, when=now(), device=two.device, how="stored",
        passport=dict(two.passport), differences=differences,
    )  # fmt: skip


def differences_of(one: Result, two: Result) -> tuple[str, ...]:
    """Return what besides the build differs between two results, a line each."""
    rows = [(f"passport: {k}", *v) for k, v in _unequal(one.passport, two.passport)]
    rows += [(f"settings: {k}", *v) for k, v in _unequal(one.settings, two.settings)]
    for key in ("threads", "cpus"):
        rows += [(key, getattr(one.subject, key), getattr(two.subject, key))]
    rows += [("mode", one.mode, two.mode), ("device", one.device, two.device)]
    rows.append(("throttled", _throttled(one), _throttled(two)))
    heat = [_start_c(r) for r in (one, two)]
    known = [h for h in heat if h is not None]
    if len(known) == 1 or (known and abs(known[0] - known[1]) > BAND_C):
        words = ["unknown" if h is None else f"{h:.1f} °C" for h in heat]
        rows.append(("hottest zone at the start", words[0], words[1]))
    return tuple(f"{name}: {a} against {b}" for name, a, b in rows if a != b)


def _unequal(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    keys = sorted({*one, *two})
    return [(k, (one.get(k, "-"), two.get(k, "-"))) for k in keys if one.get(k) != two.get(k)]


def _throttled(result: Result) -> str:
    return result.telemetry.throttled if result.telemetry else "unknown"


def _start_c(result: Result) -> float | None:
    """Return the hottest zone at the start in degrees Celsius, None where none was read."""
    columns = result.telemetry.columns if result.telemetry else {}
    first = [c[0] for k, c in columns.items() if k.startswith("temperature") and c and c[0] is not None]
    return max(v for v in first if v is not None) if first else None
