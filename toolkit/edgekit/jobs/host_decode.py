"""Move a detector's box decoder from the network to the host, where both give the same boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.answers.detect import Detect
from edgekit.core.lazy import have, need
from edgekit.core.records import Answers, Contract
from edgekit.core.watch import watcher
from edgekit.data.sample import Sample
from edgekit.frames.images import read_image
from edgekit.frames.prepare import Placement, prepare
from edgekit.graph.decode_tail import cut_decoder
from edgekit.graph.onnx_file import outputs_of
from edgekit.jobs.ask import Ask

# Boxes and scores of the two ways may differ by this much: float32 in another order.
_PIXELS, _SCORE = 0.01, 1e-4


def host_decoded(ask: Ask, model: Any, contract: Contract, samples: Sequence[Sample]) -> tuple[Any, Contract]:
    """Return the graph without its decoder and the contract that says so; both unchanged where that cannot be.

    The decoder is memory traffic: on HierLight-YOLO-N's 34,000 anchors it took 15 of onnxruntime's 48 ms
    (AMD EPYC, 2 cores). On the host only anchors above the threshold are decoded, and always in float32,
    whatever the network runs in.

    Args:
        ask: The compile.
        model: Static shapes.
        contract: Of the model as it is.
        samples: Real images on which both must agree; random input where there are none.
    """
    wished = ask.checked.recipe.export.decode == "host" and contract.answers.layout == "yolov8"
    # Without an engine here nothing can be proven, and the graph stays as it came.
    if not wished or not have("onnxruntime"):
        return model, contract
    inferred = need("onnx", extra="host").shape_inference.infer_shapes(model, data_prop=True)
    cut = cut_decoder(inferred)
    if cut is None:
        watcher().note("boxes are decoded in the network: its decoder is not YOLOv8's")
        return model, contract
    answers = replace(contract.answers, layout="yolov8-logits", levels=cut.levels)
    if not _agree(model, cut.model, contract, answers, samples):
        watcher().note("boxes are decoded in the network: the host's decoder gives others")
        return model, contract
    return cut.model, replace(contract, outputs=outputs_of(cut.model), answers=answers)


def _agree(whole: Any, part: Any, contract: Contract, answers: Answers, samples: Sequence[Sample]) -> bool:
    """Return whether both graphs answer real images with the same boxes."""
    one, other = (_session(m) for m in (whole, part))
    name, shape = contract.inputs[0].name, contract.inputs[0].shape
    size = (shape[2], shape[3])
    place = Placement(scale_x=1, scale_y=1, left=0, top=0, width=size[1], height=size[0])
    for given in _inputs(contract, samples, size):
        outputs = [
            {o.name: v for o, v in zip(s.get_outputs(), s.run(None, {name: given}), strict=True)}
            for s in (one, other)
        ]
        # A threshold at which there is something to compare, also in an untrained net.
        scores = next(iter(outputs[0].values()))[0, 4:].max(0)
        level = float(np.sort(scores)[-min(100, len(scores))]) * 0.999
        rows = [
            Detect().answer(o, replace(a, score=level, limit=50), place)
            for o, a in zip(outputs, (contract.answers, answers), strict=True)
        ]
        if len(rows[0]) != len(rows[1]) or not (rows[0].classes == rows[1].classes).all():
            return False
        apart = np.abs(rows[0].boxes - rows[1].boxes).max(initial=0)
        if apart > _PIXELS or np.abs(rows[0].scores - rows[1].scores).max(initial=0) > _SCORE:
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
