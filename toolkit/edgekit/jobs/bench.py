"""Benchmark a bundle or model file here, on a device, or on many devices at once."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit.board.hold import held
from edgekit.board.orders import Order
from edgekit.board.work import carry_out
from edgekit.core.errors import DeviceError, EdgekitError, MissingError, ResourceError
from edgekit.core.files import link_or_copy
from edgekit.core.plugins import pick
from edgekit.core.result import Result, Subject
from edgekit.core.watch import watcher
from edgekit.core.wire import artifact_from
from edgekit.devices.agents import Agent, Place, planned, understood
from edgekit.devices.connect import agent_of
from edgekit.devices.profiles import Profile
from edgekit.forms.stored import rebuilt
from edgekit.jobs.orders import new_id, new_order, now
from edgekit.jobs.parcel import Parcel, parcel_of
from edgekit.machine.probe import passport, physical_cores
from edgekit.measure.bench import BenchOrder, swept, ways_to_run
from edgekit.measure.percentiles import median
from edgekit.results.store import Store

# Boards measured at the same time; more only queue on this machine's own cores.
AT_ONCE = 16
_SWEEP_RUNS = 200
_SKEW_S = 60


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to benchmark and how; `settings` are those of `board.work`.

    Attributes:
        what: Bundle, `.onnx` or `.xml`.
        settings: mode, spans, runs, seconds, fps, seed, hz, rest, layers, threads, cpus.
        data: Images for the inputs.
        variant: Of a bundle.
        backend: For an ONNX file.
        imgsz: For an ONNX file with a free size.
        wait: Wait for a board that is taken.
    """

    what: Path
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    variant: str = ""
    backend: str = ""
    imgsz: int = 0
    wait: bool = False


def order_of(parcel: Parcel, request: Request, device: str, *, do: str = "bench") -> Order:
    """Return the order for a parcel, with the hash of every file."""
    settings = {**request.settings, **({"note": parcel.note} if parcel.note else {})}
    return new_order(
        do, device, parcel.sources, subject=parcel.subject, bundle=parcel.bundle, variant=request.variant,
        artifact=parcel.artifact, frames=parcel.frames, settings=settings,
    )  # fmt: skip


def _parcel(request: Request, *, arrays: bool = False) -> AbstractContextManager[Parcel]:
    return parcel_of(
        request.what, data=request.data, backend=request.backend, imgsz=request.imgsz, arrays=arrays
    )


def bench_here(request: Request) -> Result:
    """Return the result of a bench on this machine.

    Raises:
        EdgekitError: See its kinds and exit codes.
    """
    with (
        _parcel(request) as parcel,
        tempfile.TemporaryDirectory() as folder,
    ):
        order = order_of(parcel, request, "local")
        for path, source in parcel.sources.items():
            link_or_copy(source, Path(folder) / path)
        with taken(order, wait=request.wait):
            return rebuilt(carry_out(order, Path(folder)), Result)


@contextmanager
def taken(order: Order, *, wait: bool) -> Iterator[None]:
    """Hold this machine as a board's agent does, so that nobody measures beside.

    Raises:
        ResourceError: Somebody else holds it, and `wait` is not set.
    """
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(Path(Place().lock), who=order.who, order=order.id))
            except ResourceError as error:
                if not wait:
                    raise
                watcher().phase(error.message)
                time.sleep(1.0)
            else:
                break
        yield


def bench_on(
    profile: Profile, request: Request, store: Store, parcels: Callable[[bool], Parcel] | None = None
) -> Result:
    """Return the result of a bench on a device, stored; an order whose line is cut stays noted as pending.

    Raises:
        EdgekitError: See its kinds and exit codes.
    """
    agent = agent_of(profile)
    watcher().phase(f"{profile.name}: connecting")
    hello = agent.hello()
    with understood(profile.name):
        arrays, skew = not hello["decoder"], _skew(hello)
    with ExitStack() as stack:
        parcel = parcels(arrays) if parcels else stack.enter_context(_parcel(request, arrays=arrays))
        refuse_without_engine(profile.name, hello, parcel)
        order = order_of(parcel, request, profile.name)
        agent.upload({order.files[p]: f for p, f in parcel.sources.items()})
    store.note_pending(order.id, profile.name)
    try:
        agent.submit(order, wait=request.wait)
    except DeviceError:
        raise
    except EdgekitError:
        store.forget_pending(order.id)
        raise
    try:
        body = agent.wait(order.id)
    except (DeviceError, ResourceError) as error:
        # `edgekit results collect` in another window may have been faster.
        if found := store.found(order.id):
            return found
        hint = "The run goes on there; `edgekit results collect` fetches its result."
        raise type(error)(error.message, hint=hint) from error
    return collected(agent, order.id, profile, store, body, skew=skew)


def collected(
    agent: Agent, identity: str, profile: Profile, store: Store, body: dict[str, Any], *, skew: str = ""
) -> Result:
    """Return the result in what a device answered: stored here first, then removed there.

    Raises:
        EdgekitError: The run failed there; its error, as the same kind.
    """
    if "error" in body:
        if agent.forget(identity):
            store.forget_pending(identity)
        raise planned(body["error"], profile.name)
    with understood(profile.name):
        # Its name here is ours: what a board answers must not choose a file's path.
        result = replace(rebuilt(body["ok"], Result), id=identity, device=profile.name)
    notes = [skew] if skew else []
    if body.get("tries", 1) > 1:
        notes.append(f"begun {body['tries']} times: the worker or the board had stopped")
    if not profile.looks_like(result.passport):
        notes.append(
            f"the board does not look like {profile.name}: {result.passport.get('board') or result.passport.get('cpu')}"
        )
    result = replace(result, notes=(*result.notes, *notes))
    store.keep(result)
    if agent.forget(identity):
        store.forget_pending(identity)
    return result


def refuse_without_engine(name: str, hello: dict[str, Any], parcel: Parcel) -> None:
    """Refuse a device that has none of the engines a parcel needs, before anything is sent.

    Raises:
        MissingError: It has none, or no numpy.
    """
    engines = hello["passport"].get("engines", {})
    if not hello["numpy"] or not set(parcel.engines) & set(engines):
        lacking = "numpy" if not hello["numpy"] else " or ".join(parcel.engines)
        raise MissingError(
            f"{name}: has no {lacking} in its Python {hello['passport']['python']}",
            hint=f"Put it there: edgekit devices provision {name} --engine {parcel.engines[0]}",
        )


def _skew(hello: dict[str, Any]) -> str:
    there = dt.datetime.strptime(hello["clock"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.timezone.utc)
    off = (there - dt.datetime.now(dt.timezone.utc)).total_seconds()
    return f"the board's clock is {off:+.0f} s off; times are this machine's" if abs(off) > _SKEW_S else ""


def bench_many(profiles: Sequence[Profile], request: Request, store: Store) -> list[Result]:
    """Return a result for each device, complete or failed with the code of its error; all are stored."""
    heard = watcher()
    done = 0

    def one(profile: Profile) -> Result:
        nonlocal done
        found = _or_failed(profile, request, store, parcels)
        done += 1
        heard.step("boards", done, len(profiles))
        heard.note(f"{profile.name}: {found.state}{' ' + ': '.join(found.reason) if found.reason else ''}")
        return found

    with _shared(request) as parcels, ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        parcels(False)  # noqa: FBT003 - what cannot be read is said now, once, and not by each board
        return list(pool.map(one, profiles))


@contextmanager
def _shared(request: Request) -> Iterator[Callable[[bool], Parcel]]:
    """Give a function that makes each kind of parcel once for all boards: with image files, or raw arrays."""
    made: dict[bool, Parcel] = {}
    lock = threading.Lock()
    with ExitStack() as stack:

        def parcels(arrays: bool) -> Parcel:  # noqa: FBT001 - the kind is all there is to it
            with lock:
                if arrays not in made:
                    made[arrays] = stack.enter_context(_parcel(request, arrays=arrays))
                return made[arrays]

        yield parcels


def _or_failed(profile: Profile, request: Request, store: Store, parcels: Callable[[bool], Parcel]) -> Result:
    try:
        return bench_on(profile, request, store, parcels)
    except EdgekitError as error:
        failed = Result(
            id=new_id(now(), profile.name), when=now(),
            mode=str(request.settings.get("mode", "")), device=profile.name,
            subject=Subject(name=request.what.stem, kind="", sha256=""), state="failed",
            reason=(type(error).__name__, error.message), notes=(error.hint,) if error.hint else (),
        )  # fmt: skip
        store.keep(failed)
        return failed


def collect(profiles: Callable[[str], Profile], store: Store) -> tuple[list[Result], list[str]]:
    """Fetch the results of orders whose line was cut; return them, and why others are not here yet."""
    found, open_ones = [], []
    for identity, device in store.pending():
        try:
            profile = profiles(device)
            agent = agent_of(profile)
            state = agent.status(identity, 1.0)
            if isinstance(body := state.get("result"), dict):
                found.append(collected(agent, identity, profile, store, body))
            elif state.get("state"):
                open_ones.append(f"{device}: {identity} is still running")
            else:
                store.forget_pending(identity)
                open_ones.append(f"{device}: does not know {identity} any more")
        except EdgekitError as error:
            open_ones.append(f"{device}: {error.message}")
    return found, open_ones


def sweep(request: Request) -> list[tuple[str, float, float]]:
    """Return name, median and p90 in milliseconds of each way to set threads and cores, fastest first.

    Raises:
        EdgekitError: See its kinds and exit codes.
    """
    with _parcel(request) as parcel:
        if parcel.bundle:
            from edgekit.bundle.read import open_bundle
            from edgekit.runtime.load import choose

            with open_bundle(request.what) as bundle:
                variant, _ = choose(bundle, request.variant or None)
                artifact = variant.artifact(bundle.folder, bundle.manifest.contract)
                return _swept(artifact, tuple(parcel.sources[f] for f in parcel.frames))
        main = parcel.sources[parcel.artifact["main"]]
        artifact = artifact_from({**parcel.artifact, "main": str(main)})
        return _swept(artifact, tuple(parcel.sources[f] for f in parcel.frames))


def _swept(artifact: Any, files: tuple[Path, ...]) -> list[tuple[str, float, float]]:
    if why := pick("backends", artifact.backend, what="backend").refusal(passport()):
        raise MissingError(why, hint="Install the engine.")
    order = BenchOrder(artifact=artifact, files=files)
    found = swept(ways_to_run(order, sorted(os.sched_getaffinity(0)), physical_cores()), runs=_SWEEP_RUNS)
    rows = [(n, median(ms), sorted(ms)[int(0.9 * (len(ms) - 1))]) for n, ms in found.items()]
    return sorted(rows, key=lambda r: r[1])
