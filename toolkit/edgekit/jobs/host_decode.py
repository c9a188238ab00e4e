"""Move a detector's box decoder from the network to the host, where both give the same boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.answers.detect import boxes_of
from edgekit.backends.ort_session import engine_errors
from edgekit.core.lazy import have, need
from edgekit.core.records import Contract
from edgekit.core.watch import watcher
from edgekit.data.sample import Sample
from edgekit.frames.images import read_image
from edgekit.frames.prepare import prepare
from edgekit.graph.decode_tail import BOXES, SCORES, cut_decoder
from edgekit.graph.onnx_file import outputs_of
from edgekit.jobs.ask import Ask

# Boxes and scores of the two ways may differ by this much: float32 in another order.
_PIXELS, _SCORE = 0.01, 1e-4
_COMPARED = 500


def host_decoded(ask: Ask, model: Any, contract: Contract, samples: Sequence[Sample]) -> tuple[Any, Contract]:
    """Return the graph without its decoder and the contract that says so; both unchanged where that cannot be.

    The decoder is memory traffic: on HierLight-YOLO-N's 34,000 anchors it takes about a third of
    onnxruntime's time (docs/decisions/0005-boxes-are-decoded-on-the-host.md). On the host only anchors above the threshold are decoded, and always in float32,
    whatever the network runs in.

    Args:
        ask: The compile.
        model: Static shapes.
        contract: Of the model as it is.
        samples: Real images on which both must agree; random input where there are none.
    """
    wished = ask.checked.recipe.export.decode == "host" and contract.answers.layout == "yolov8"
    if not wished:
        return model, contract
    if not have("onnxruntime"):
        watcher().note(
            "boxes are decoded in the network: onnxruntime, which would prove the host's, is missing"
        )
        return model, contract
    inferred = need("onnx", extra="host").shape_inference.infer_shapes(model, data_prop=True)
    cut = cut_decoder(inferred)
    if cut is None:
        watcher().note("boxes are decoded in the network: its decoder is not YOLOv8's")
        return model, contract
    answers = replace(contract.answers, layout="yolov8-logits", levels=cut.levels)
    if not _agree(model, cut.model, contract, cut.levels, samples):
        watcher().note("boxes are decoded in the network: the host's decoder gives others")
        return model, contract
    return cut.model, replace(contract, outputs=outputs_of(cut.model), answers=answers)


def _agree(
    whole: Any,
    part: Any,
    contract: Contract,
    levels: tuple[tuple[int, int, int], ...],
    samples: Sequence[Sample],
) -> bool:
    """Return whether both graphs give the same scores and, at the best anchors, the same boxes."""
    try:
        one, other = (_session(m) for m in (whole, part))
    except engine_errors():
        return False
    name, shape = contract.inputs[0].name, contract.inputs[0].shape
    for given in _inputs(contract, samples, (shape[2], shape[3])):
        table = one.run(None, {name: given})[0][0]
        raw, logits = other.run([BOXES, SCORES], {name: given})
        best = np.argsort(-table[4:].max(0))[:_COMPARED]
        middle, half = table[:2, best].T, table[2:4, best].T / 2
        apart = np.abs(boxes_of(raw, levels, best) - np.hstack([middle - half, middle + half])).max()
        scores = np.abs(1 / (1 + np.exp(-logits[0])) - table[4:]).max()
        if not (apart <= _PIXELS and scores <= _SCORE):
            return False
    return True


def _session(model: Any) -> Any:
    ort = need("onnxruntime", extra="host", why="compare two graphs")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _inputs(
    contract: Contract, samples: Sequence[Sample], size: tuple[int, int]
) -> list[NDArray[np.float32]]:
    if samples and contract.frames:
        return [prepare(read_image(s.path), contract.frames, size)[0] for s in samples[:2]]
    return [np.random.default_rng(0).random((1, 3, *size), np.float32)]
