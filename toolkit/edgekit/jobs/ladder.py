"""Climb from the model as it came to the bundle on the device; name the first rung where outputs part."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import ContractError
from edgekit.core.outcome import Rung
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Network
from edgekit.core.watch import watcher
from edgekit.export.torch_onnx import TOLERANCE
from edgekit.frames.coded import read_frame
from edgekit.jobs.ask import Ask
from edgekit.jobs.model import Loaded
from edgekit.jobs.variants import Lowered, Networks, stand_in
from edgekit.measure.agreement import unmatched
from edgekit.measure.golden import UNMATCHED
from edgekit.measure.inputs import Inputs
from edgekit.measure.parity import largest_error
from edgekit.runtime.load import load

_FRAMES = 3
# One engine's int8 on two CPUs: OpenVINO on ARM was seen 1.1 % of the largest output away from x86's.
_SAME_ARTIFACT = {"fp32": TOLERANCE, "fp16": 0.02, "bf16": 0.05, "int8": 0.05}
_ANSWERS = 0.01
# Of another engine on the same graph; TensorRT's float32 has the mantissa of TF32, its int8 is judged by accuracy.
_ENGINE = {"fp32": 0.01, "fp16": 0.02, "int8": None}


def climbed(
    ask: Ask, loaded: Loaded, networks: Networks, chosen: Lowered, bundle: Path, files: Sequence[Path]
) -> tuple[Rung, ...]:
    """Return every rung, all within their limits.

    Raises:
        ContractError: One is not; the first such is named.
    """
    engine = chosen.wanted.backend == "tensorrt"
    if engine and not ask.here:
        return ()
    watcher().phase("parity ladder")
    drawn = Inputs(networks.float32.contract, files[:_FRAMES], seed=0)
    given = [drawn.draw() for _ in range(_FRAMES)]
    rungs: list[Rung] = []
    if loaded.parity is not None:
        _step(rungs, Rung(name="ONNX from torch", error=loaded.parity, limit=TOLERANCE))
    before = _outputs(_float(loaded.network), _as_loaded(given, loaded.network, networks.float32))
    after = _outputs(_float(networks.float32), given)
    if [*before[0]] == [*after[0]]:
        # Where a pass changed outputs on purpose, the accuracy gate judges that.
        limit = None if networks.dense else TOLERANCE
        _step(rungs, Rung(name="ONNX after passes", error=_worst(before, after), limit=limit))
    # A host has no engine to compare with the board's: onnxruntime runs the graph that it is built from.
    graph = stand_in(ask, networks, chosen.wanted) if engine else chosen
    here = _outputs(graph.artifact, given)
    exact = chosen.wanted.precision == "fp32"
    name = f"the graph of {chosen.wanted.plain}" if engine else chosen.wanted.plain
    _step(rungs, Rung(name=name, error=_worst(after, here), limit=TOLERANCE if exact else None))
    if ask.board or engine:
        error = _on_device(ask, chosen, given, here)
        limit = (_ENGINE if engine else _SAME_ARTIFACT)[chosen.wanted.precision]
        _step(rungs, Rung(name="engine" if engine else "board", error=error, limit=limit, where=ask.where))
    if ask.here and networks.float32.contract.answers.task == "detect":
        _step(rungs, _runtime(ask, chosen, bundle))
    return tuple(rungs)


def _as_loaded(
    given: Sequence[Mapping[str, NDArray[Any]]], loaded: Network, network: Network
) -> Sequence[Mapping[str, NDArray[Any]]]:
    """Return inputs as the model took them before a codec stood in front of it: the values of its codes."""
    frames = network.contract.frames
    if frames is None or frames.coding is None:
        return given
    codec = pick("codecs", frames.coding.codec, what="codec")
    name, own = loaded.contract.inputs[0].name, network.contract.inputs[0].name
    return [{name: codec.decode(g[own], frames.coding.settings)} for g in given]


def _step(rungs: list[Rung], rung: Rung) -> None:
    rungs.append(rung)
    if not rung.holds:
        raise ContractError(
            f"parity breaks at {rung.name} on {rung.where}: outputs differ by {rung.error:.2e}, {rung.limit:g} is allowed",
            hint=f"The rungs below it hold: {', '.join(r.name for r in rungs[:-1]) or 'none'}.",
        )


def _float(network: Network) -> Artifact:
    return Artifact(
        backend="onnxruntime", precision="fp32", main=network.main.path, contract=network.contract
    )


Outputs = list[dict[str, NDArray[Any]]]


def _outputs(artifact: Artifact, given: Sequence[Mapping[str, NDArray[Any]]]) -> Outputs:
    with pick("backends", artifact.backend, what="backend").open(artifact) as session:
        return [session.infer(g) for g in given]


def _worst(one: Outputs, two: Outputs) -> float:
    return max(min(largest_error(a, b), 1e9) for a, b in zip(one, two, strict=True))


def _on_device(
    ask: Ask, chosen: Lowered, given: Sequence[Mapping[str, NDArray[Any]]], here: Outputs
) -> float:
    if not ask.board:
        return _worst(here, _outputs(chosen.artifact, given))
    with tempfile.TemporaryDirectory() as folder:
        for k, (inputs, expected) in enumerate(zip(given, here, strict=True)):
            np.savez(Path(folder) / f"inputs{k}.npz", **inputs)  # type: ignore[arg-type]
            np.savez(Path(folder) / f"expected{k}.npz", **expected)  # type: ignore[arg-type]
        return max(ask.board.parity(chosen.artifact, sorted(Path(folder).iterdir())))


def _runtime(ask: Ask, chosen: Lowered, bundle: Path) -> Rung:
    """Return how many answers of the bundle's own runtime have no partner among its golden ones."""
    golden = sorted((bundle / "golden").glob("answer*.json"))
    expected = [json.loads(p.read_text()) for p in golden]
    if ask.board:
        found = ask.board.golden(bundle)
    else:
        with load(bundle) as model:
            frames = sorted((bundle / "golden").glob("frame*.npy"))
            found = [model.whole()(read_frame(f, model.contract.frames)).plain() for f in frames]
    limit = _ANSWERS if chosen.wanted.backend != "tensorrt" else UNMATCHED[chosen.wanted.precision]
    return Rung(name="runtime", error=unmatched(expected, found), limit=limit, where=ask.where)
