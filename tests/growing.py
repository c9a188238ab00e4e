"""A small teacher and student of random weights, exported in segments, as a folder that a `Growing` reads."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from edgekit.core.digest import digest_file
from edgekit.export.staged_onnx import parts_of
from edgekit.models.classifiers import build_classifier
from edgekit.models.staged import staged
from edgekit.plans.progressive import Growth, Segment, Step, chain
from edgekit.training.distillation.masks import prefix_masks
from edgekit.training.distillation.pair import Pair

SHAPE = (3, 16, 16)


def network(kind: str, options: dict, seed: int, shape=SHAPE):
    torch.manual_seed(seed)
    net = build_classifier(kind, nc=5, options=options)
    for module in net.modules():
        # BatchNorm that does something, or a mistake in it would not show.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
    return staged(net.eval(), shape=shape)


def pair_of(kind: str = "resnet", *, equal: bool = False) -> Pair:
    if kind == "resnet":
        wide, thin = {"widths": [8, 12, 16, 24]}, {"widths": [4, 6, 8, 12], "depths": [1] * 4}
        thin = {**thin, **wide} if equal else thin
    elif kind == "vgg":
        wide, thin = {"widths": [8, 12, 16], "depths": [2, 2, 2]}, {"widths": [4, 6, 16], "depths": [1] * 3}
    else:
        wide, thin = {"width": 24, "depth": 4, "side": 16}, {"width": 12, "depth": 4, "side": 16}
    return Pair(network(kind, wide, 0), network(kind, thin, 1), shape=SHAPE).eval()


def write_segments(pair: Pair, folder: Path, masks: tuple[str, ...] = (), accuracy=()) -> Growth:
    """Write every segment that the masks need and return the growth through them."""
    masks = masks or prefix_masks(pair.stages)
    folder.mkdir(parents=True, exist_ok=True)
    parts = parts_of(pair, masks, shape=SHAPE, input_name="images", opset=17)
    segments = {}
    for name, part in parts.items():
        path = folder / f"{name}.onnx"
        onnx.save(part.model, path)
        segments[name] = Segment(
            name=name, file=path.name, sha256=digest_file(path), size=path.stat().st_size,
            inputs=part.inputs, outputs=part.outputs, beside={},
        )  # fmt: skip
    converters = frozenset(n for n in segments if n[:3] in {"enc", "dec"})
    steps = tuple(
        Step(
            mask=m, segments=chain(m, converters, taps=pair.student.taps),
            accuracy=accuracy[k] if accuracy else None,
        )
        for k, m in enumerate(masks)
    )  # fmt: skip
    return Growth(segments=segments, steps=steps, metric="top1")
