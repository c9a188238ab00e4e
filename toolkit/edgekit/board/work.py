"""Carry out one order on the machine this runs on."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.backends import engines
from edgekit.board.orders import Order
from edgekit.bundle.read import open_bundle
from edgekit.core.digest import digest_bytes, plain
from edgekit.core.errors import RecipeError
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact
from edgekit.core.result import Subject
from edgekit.core.wire import artifact_from
from edgekit.frames.coded import read_frame
from edgekit.machine.probe import passport, physical_cores
from edgekit.measure.bench import BenchOrder, bench, has_frames, refuse_spans
from edgekit.measure.contest import contest
from edgekit.measure.detect import detections, packed
from edgekit.measure.encoder import encoder_times
from edgekit.measure.golden import tester
from edgekit.measure.modes import SPANS
from edgekit.measure.outputs import outputs_apart
from edgekit.measure.parity import largest_error
from edgekit.measure.versus import versus
from edgekit.runtime.load import choose, load


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Opened:
    artifact: Artifact
    variant: str
    open_ms: float | None


def carry_out(order: Order, folder: Path) -> dict[str, Any]:
    """Return what an order asks for, as JSON knows it.

    Args:
        order: The order.
        folder: Holds the order's files at their paths.

    Raises:
        EdgekitError: The order cannot be carried out; its kind says why.
    """
    several = {
        "contest": _contest,
        "answers": _answers,
        "pair": _pair,
        "parity": _parity,
        "golden": _golden,
        "encoder": _encoder,
        "engine": _engine,
    }
    if order.do in several:
        return several[order.do](order, _entrants(order, folder), folder)
    kinds = {"bench": _bench, "compare": _compare}
    if order.do not in kinds:
        raise RecipeError(
            f"order: nothing called {order.do!r}", hint=f"There are: {', '.join((*kinds, *several))}."
        )
    with _opened(order, folder) as opened:
        return kinds[order.do](order, opened, folder)


@contextmanager
def _opened(order: Order, folder: Path) -> Iterator[_Opened]:
    threads = order.settings.get("threads")
    if not order.bundle:
        artifact = artifact_from({**order.artifact, "main": str(folder / order.artifact["main"])})
        # An engine's own choice differs between engines and versions; a bundle's is what it was proven with.
        own = artifact.options.get("threads") or physical_cores()
        yield _Opened(artifact=_with_threads(artifact, threads or own), variant="", open_ms=None)
        return
    began = time.perf_counter_ns()
    with open_bundle(folder / order.bundle) as bundle:
        variant, _ = choose(bundle, order.variant or None)
        artifact = variant.artifact(bundle.folder, bundle.manifest.contract)
        took = (time.perf_counter_ns() - began) / 1e6
        yield _Opened(artifact=_with_threads(artifact, threads), variant=variant.name, open_ms=took)


def _with_threads(artifact: Artifact, threads: int | None) -> Artifact:
    if not threads:
        return artifact
    return dataclasses.replace(artifact, options={**artifact.options, "threads": threads})


def _bench(order: Order, opened: _Opened, folder: Path) -> dict[str, Any]:
    given = dict(order.settings)
    cpus = tuple(given.get("cpus", ()))
    wanted = BenchOrder(
        artifact=opened.artifact, files=tuple(folder / f for f in order.frames), open_ms=opened.open_ms, cpus=cpus,
        spans=tuple(given.get("spans", ())) or _spans(opened.artifact, order.frames),
        **{k: given[k] for k in ("mode", "runs", "seconds", "fps", "seed", "hz", "rest", "layers") if k in given},
    )  # fmt: skip
    found = bench(wanted, _subject(order, opened), identity=order.id, when=order.when, device=order.device)
    note = given.get("note", "")
    return dict(plain(dataclasses.replace(found, notes=(*found.notes, note) if note else found.notes)))


def _compare(order: Order, opened: _Opened, folder: Path) -> dict[str, Any]:
    """Return the comparison of the order's other build with its own."""
    second = dataclasses.replace(
        order, bundle=order.other.get("bundle", ""), variant=order.other.get("variant", ""),
        artifact=order.other.get("artifact", {}), subject=order.other["subject"],
    )  # fmt: skip
    span = order.settings["spans"][0]
    with _opened(second, folder) as other:
        for one in (opened, other):
            refuse_spans(one.artifact, (span,), order.frames)
        subjects = (_subject(order, opened), _subject(second, other))
        found = versus(
            (opened.artifact, other.artifact), subjects, [folder / f for f in order.frames], span=span,
            when=order.when, device=order.device, seed=order.settings.get("seed", 0),
        )  # fmt: skip
    note = order.settings.get("note", "")
    return dict(plain(dataclasses.replace(found, notes=(*found.notes, note) if note else found.notes)))


def _subject(order: Order, opened: _Opened) -> Subject:
    backend, precision = opened.artifact.backend, opened.artifact.precision
    if backend == "tensorrt" and (engine := engines.found_for(opened.artifact.folder)):
        # The fp16 twin or a provider may stand where int8 could not be built.
        backend, precision = engine.provider or backend, engine.precision
    return Subject(
        **order.subject, variant=opened.variant, backend=backend, precision=precision, threads=int(opened.artifact.options.get("threads", 0)),
        cpus=tuple(order.settings.get("cpus", ())),
    )  # fmt: skip


def _spans(artifact: Artifact, frames: Sequence[str]) -> tuple[str, ...]:
    """Return the spans that can be measured: from a frame only where there are frames and declared answers."""
    return SPANS if frames and has_frames(artifact.contract) else SPANS[:2]


def _entrants(order: Order, folder: Path) -> dict[str, Artifact]:
    """Return the artifacts a compile sent, by name."""
    given = order.settings["entrants"]
    return {n: artifact_from({**a, "main": str(folder / a["main"])}) for n, a in given.items()}


def _contest(order: Order, entrants: Mapping[str, Artifact], folder: Path) -> dict[str, Any]:
    """Return the timings of variants that took turns."""
    kept = ("runs", "seconds", "limit_s", "spans", "receipts")
    found = contest(
        entrants, [folder / f for f in order.frames], **{k: order.settings[k] for k in kept}
    )  # fmt: skip
    return {"samples": {n: vars(s) for n, s in found.items()}}


def _answers(order: Order, entrants: Mapping[str, Artifact], folder: Path) -> dict[str, Any]:
    """Return the answers to every frame, by the code that an app runs."""
    artifact = entrants["main"]
    contract = artifact.contract
    if contract.frames is None or contract.answers.task == "raw":
        raise RecipeError(
            "accuracy on the device is judged for detectors and classifiers", hint="Leave the data out."
        )
    rows = detections(
        artifact, [folder / f for f in order.frames], score=order.settings["score"], limit=order.settings["limit"],
        what="accuracy",
    )  # fmt: skip
    return {"found": base64.b64encode(packed(rows)).decode()}


def _pair(order: Order, entrants: Mapping[str, Artifact], folder: Path) -> dict[str, Any]:
    """Return the largest output error of one artifact against another, and whether its scores fell."""
    error, fell = outputs_apart(entrants["reference"], entrants["other"], [folder / f for f in order.frames])
    return {"error": error, "fell": fell}


def _parity(order: Order, entrants: Mapping[str, Artifact], folder: Path) -> dict[str, Any]:
    """Return the largest relative error of each pair `inputsK.npz`, `expectedK.npz`, and output digests."""
    errors, digests = [], []
    names = sorted(f for f in order.files if Path(f).name.startswith("inputs"))
    artifact = entrants["main"]
    with pick("backends", artifact.backend, what="backend").open(artifact) as session:
        for name in names:
            outputs = session.infer(_arrays(folder / name))
            expected = _arrays(folder / name.replace("inputs", "expected"))
            errors.append(min(largest_error(expected, outputs), 1e9))
            digests.append(digest_bytes(b"".join(outputs[k].tobytes() for k in sorted(outputs))))
    return {"errors": errors, "digests": digests}


def _golden(order: Order, entrants: Mapping[str, Artifact], folder: Path) -> dict[str, Any]:
    """Return the answers of a bundle for its golden frames, opened and run as an app does."""
    del order, entrants
    frames = sorted((folder / "bundle/golden").glob("frame*.npy"))
    with load(folder / "bundle") as model:
        return {
            "answers": [model.whole()(read_frame(f, model.contract.frames)).plain() for f in frames],
            "variant": model.variant.name,
        }


def _encoder(order: Order, entrants: Mapping[str, Artifact], folder: Path) -> dict[str, Any]:
    """Return how long this board takes to code one frame of the sensor before a model."""
    spec = entrants["main"].contract.frames
    if spec is None or spec.coding is None:
        raise RecipeError("no codec stands before this model", hint="Ask for a model behind gamma-quant.")
    return encoder_times(spec.coding, [read_frame(folder / f, spec) for f in order.frames])


def _engine(order: Order, entrants: Mapping[str, Artifact], folder: Path) -> dict[str, Any]:
    """Build, list or clear TensorRT engines of this board."""
    what = order.settings["what"]
    if what == "build":
        power, main = str(passport().get("power_mode", "")), entrants["main"]
        return engines.built(
            main.folder, power_mode=power, limit_s=float(order.settings["limit_s"]),
            test=tester(main.contract, folder / "golden"),
        )  # fmt: skip
    if what == "clear":
        return {"removed": engines.clear(order.settings["keys"])}
    return {"engines": [e.facts() for e in engines.listed()]}


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as data:
        return {k: data[k] for k in data.files}
