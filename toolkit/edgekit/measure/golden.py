"""Try a TensorRT engine on a bundle's golden frames before it is used, in a process of its own.

Run as `python -m edgekit.measure.golden`: one JSON object on stdin, one on stdout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.build_child import child_of
from edgekit.backends.engines import Test
from edgekit.backends.tensorrt import opened
from edgekit.core.digest import plain
from edgekit.core.errors import EdgekitError
from edgekit.core.plugins import pick
from edgekit.core.records import Contract
from edgekit.core.wire import contract_from
from edgekit.frames.coded import read_frame
from edgekit.frames.prepare import prepare
from edgekit.measure.agreement import unmatched

# The golden answers are float32's of another engine: boxes near the threshold come and go with fewer bits,
# a broken engine loses most of them.
UNMATCHED = {"fp32": 0.1, "fp16": 0.1, "int8": 0.25}
_COSINE = {"fp32": 0.999, "fp16": 0.99, "int8": 0.9}
_LIMIT_S = 300.0


def tester(contract: Contract, golden: Path) -> Test | None:
    """Return what tries an engine on a bundle's golden frames, None where there are none."""
    if not any(golden.glob("*.np[yz]")):
        return None
    return lambda plan, precision: refused(plan, precision, contract, golden)


def refused(plan: Path, precision: str, contract: Contract, golden: Path) -> str:
    """Return why an engine fails on the golden frames, empty where it passes.

    Args:
        plan: The engine.
        precision: What it was built from.
        contract: What it takes and gives.
        golden: A bundle's folder of golden frames or inputs, with what float32 gives for them.
    """
    order = {
        "plan": str(plan),
        "precision": precision,
        "contract": plain(contract),
        "golden": str(golden),
    }
    _, why = child_of("edgekit.measure.golden", order, _LIMIT_S)
    return f"self-test: {why}" if why else ""


def _why(order: dict[str, Any]) -> str:
    contract, folder, precision = contract_from(order["contract"]), Path(order["golden"]), order["precision"]
    with opened(Path(order["plan"]).read_bytes(), contract) as session:
        lost = _lost(session, contract, folder)
        if lost > UNMATCHED[precision]:
            return f"{lost:.0%} of the boxes on the golden frames have no partner among float32's"
        for path in sorted(folder.glob("inputs*.npz")):
            given, expected = (
                _arrays(folder / n) for n in (path.name, path.name.replace("inputs", "outputs"))
            )
            near = _cosine(expected, session.infer(given))
            if not near >= _COSINE[precision]:
                return f"its outputs on {path.name} have a cosine of {near:.3f} with float32's"
    return ""


def _lost(session: Any, contract: Contract, folder: Path) -> float:
    """Return the share of detections without a partner over all golden frames, 0 where none are detections."""
    expected, found = [], []
    for path in sorted(folder.glob("frame*.npy")):
        told = path.with_name(path.name.replace("frame", "answer")).with_suffix(".json")
        if contract.frames is None or contract.answers.task != "detect" or not told.is_file():
            continue
        spec = contract.inputs[0]
        tensor, place = prepare(
            read_frame(path, contract.frames), contract.frames, (spec.shape[2], spec.shape[3])
        )
        answers = pick("answers", "detect", what="task")
        found.append(answers.answer(session.look({spec.name: tensor}), contract.answers, place).plain())
        expected.append(json.loads(told.read_text()))
    return unmatched(expected, found)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as data:
        return {k: data[k] for k in data.files}


def _cosine(expected: dict[str, NDArray[Any]], found: dict[str, NDArray[Any]]) -> float:
    """Return the smallest cosine of any output with what was expected."""
    worst = 1.0
    for name, value in expected.items():
        a, b = value.astype(np.float64).ravel(), found[name].astype(np.float64).ravel()
        length = float(np.linalg.norm(a) * np.linalg.norm(b))
        worst = min(worst, float(a @ b) / length if length else float(np.array_equal(a, b)))
    return worst


def main() -> None:
    """Try the engine that stdin names."""
    try:
        why = _why(json.load(sys.stdin))
    except EdgekitError as error:
        why = error.message
    print(json.dumps({"error": why}))


if __name__ == "__main__":
    main()
