"""Build the layers of an architecture file as ultralytics' models hold them (torch)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import PSA, SPPF, C2f, C2fCIB, Concat, Conv, Detect, SCDown

from edgekit.models.blocks import IRDCB, UIB, LDown, conv_act

_MARK = "edgekit"
_REPEATED = {"C2f": C2f, "C2fCIB": C2fCIB, "IRDCB": IRDCB}
_SCALED = {"Conv": Conv, "SCDown": SCDown, "PSA": PSA, "SPPF": SPPF}


def build_layers(d: Mapping[str, Any], channels: int) -> tuple[nn.Sequential, list[int]]:
    """Return an architecture's layers and the numbers of those whose outputs later ones read.

    Args:
        d: As `architectures.architecture` gives it.
        channels: Of the input image.

    Raises:
        KeyError: A row names a module that the builder does not know.
    """
    depth, width, most = d["scales"][next(iter(d["scales"]))]
    laterals = {f"L{k + 2}": w for k, w in enumerate(d["options"].get("lateral_widths", ()))}
    found: list[int] = []
    layers: list[Any] = []
    kept: set[int] = set()
    for i, (source, repeats, name, given) in enumerate([*d["backbone"], *d["head"]]):
        kind = str(name).removeprefix("nn.")
        rows = [source] if isinstance(source, int) else list(source)
        seen = [channels if i == 0 else found[j] for j in rows]
        n = max(round(repeats * depth), 1) if repeats > 1 else repeats
        args = [laterals.get(a, a) if isinstance(a, str) else a for a in given]
        out = scaled(args[0], width, most) if kind in {**_SCALED, **_REPEATED, "LDown": 0} else 0
        layer, c2 = _layer(kind, seen, out, args, n, d)
        layer.i, layer.f, layer.type = i, source, f"{type(layer).__module__}.{kind}"
        layer.np = sum(p.numel() for p in layer.parameters())
        kept.update(j % i for j in rows if j != -1)
        layers.append(layer)
        found.append(c2)
    return nn.Sequential(*layers), sorted(kept)


def _layer(
    kind: str, seen: Sequence[int], out: int, args: list[Any], n: int, d: Mapping[str, Any]
) -> tuple[Any, int]:
    """Return one layer and its channels."""
    c1 = seen[0]
    if kind in {"IRDCB", "LDown", "ConvAct", "UIB"}:
        return _own(kind, c1, out, args, n, d["options"])
    if kind == "Concat":
        return Concat(1), sum(seen)
    if kind == "Upsample":
        return nn.Upsample(scale_factor=2.0, mode="nearest"), c1
    if kind == "Detect":
        return _detect(d["nc"], seen, d["options"]["head"]), 0
    if kind in _REPEATED:
        return _REPEATED[kind](c1, out, n, *args[1:]), out
    layer: Any = _SCALED[kind](c1, out, *args[1:])
    if kind == "SPPF":
        # YOLOv8's SPPF has SiLU here; newer ones of ultralytics leave it out.
        layer.cv1.act = nn.SiLU(inplace=True)
    return layer, out


def _own(
    kind: str, c1: int, out: int, args: list[Any], n: int, options: Mapping[str, Any]
) -> tuple[Any, int]:
    """Return a layer of `blocks`; widths of MobileNetV4 are absolute."""
    if kind == "IRDCB":
        wrapper, act = options["irdcb_wrapper"], options["project_act"]
        return IRDCB(c1, out, n, wrapper, project_act=act), out
    if kind == "LDown":
        return LDown(c1, out, dw_act=options["dw_act"]), out
    act = options["backbone_act"]
    if kind == "UIB":
        return UIB(c1, *args, act=act, residual=options["uib_residual"]), args[0]
    return conv_act(c1, *args, act=act), args[0]


def scaled(channels: int, width: float, most: int) -> int:
    """Return a base width as a scale has it: capped, scaled, rounded up to eight."""
    return math.ceil(min(channels, most) * width / 8) * 8


def _detect(nc: int, channels: Sequence[int], head: str) -> Detect:
    """Return the head; its kind is a class attribute in ultralytics, so it is put back at once."""
    before = Detect.legacy
    Detect.legacy = head == "dense"
    try:
        made = Detect(nc, ch=tuple(channels))
    finally:
        Detect.legacy = before
    made.legacy = head == "dense"
    return made


def register() -> None:
    """Let ultralytics build our architectures, too: its trainer, validator and exporter take them.

    Its builder keeps the list of modules it knows inside one function, so that function is wrapped:
    dictionaries marked `builder: edgekit` come here, all others go where they went before. Calling it
    again changes nothing.
    """
    theirs: Callable[..., tuple[nn.Sequential, list[int]]] = tasks.parse_model
    if getattr(theirs, _MARK, False):
        return

    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> tuple[nn.Sequential, list[int]]:  # noqa: FBT001, FBT002 - ultralytics' signature
        if d.get("builder") == _MARK:
            return build_layers(copy.deepcopy(d), ch)
        return theirs(d, ch, verbose)

    setattr(parse_model, _MARK, True)
    tasks.parse_model = parse_model
