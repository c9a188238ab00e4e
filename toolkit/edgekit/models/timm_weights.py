"""Take the weights of timm's MobileNetV4-Conv-Small into the backbone of MS-YOLO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Our layer of the first block of each of timm's stages; the stem is layer 0.
_FIRST = {"0": 1, "1": 3, "2": 5, "3": 11}
_PARTS = {
    "dw_start": "start", "pw_exp": "expand", "dw_mid": "middle", "pw_proj": "project",
}  # fmt: skip


def is_timm(names: Mapping[str, Any]) -> bool:
    """Return whether these are tensors of timm's MobileNetV4, by their names."""
    return "conv_stem.weight" in names


def from_timm(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return timm's tensors under the names of MS-YOLO's backbone; classifier and last stage stay behind.

    Stage 4 (128 to 960 channels) and the head after it are no part of MS-YOLO. Their outputs equal timm's
    where `backbone_act` is relu and BatchNorm's epsilon is timm's 1e-5; YOLO's 1e-3 is what fine-tuning
    starts with.
    """
    found = {}
    for name, value in tensors.items():
        ours = _ours(name)
        if ours:
            found[ours] = value
    return found


def _ours(name: str) -> str:
    if name == "conv_stem.weight":
        return "model.0.conv.weight"
    if name.startswith("bn1."):
        return f"model.0.bn.{name.removeprefix('bn1.')}"
    fit = re.match(
        r"blocks\.([0-3])\.(\d+)\.(?:(dw_start|pw_exp|dw_mid|pw_proj)\.)?(conv|bn1?)\.(\w+)$", name
    )
    if not fit:
        return ""
    layer = _FIRST[fit[1]] + int(fit[2])
    part = f"{_PARTS[fit[3]]}." if fit[3] else ""
    return f"model.{layer}.{part}{'conv' if fit[4] == 'conv' else 'bn'}.{fit[5]}"
