"""Write and read TensorRT's calibration cache: the text file that implicit int8 takes its scales from.

Format as NVIDIA's qdq-translator writes it: a first line with the version, then one line a tensor with
the scale (largest magnitude / 127) as the hexadecimal digits of a big-endian float32.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from edgekit.core.errors import RecipeError


def calibration_text(scales: Mapping[str, float], tensorrt: str) -> str:
    """Return the cache for activations with these positive scales, for a version such as "8.6.2"."""
    major, minor, patch = (*(int(p) for p in tensorrt.split(".")[:3]), 0, 0)[:3]
    number = major * 1000 + minor * 100 + patch if major < 10 else major * 10_000 + minor * 100 + patch
    lines = [f"TRT-{number}-EntropyCalibration2"]
    lines += [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in sorted(scales.items())]
    return "\n".join(lines) + "\n"


def scales_in(text: str) -> dict[str, float]:
    """Return the scale of each tensor in a calibration cache.

    Raises:
        RecipeError: The text is none.
    """
    head, *lines = text.splitlines() or [""]
    if not head.startswith("TRT-"):
        raise RecipeError(
            "calibration cache: has no first line such as TRT-8600-EntropyCalibration2",
            hint="Write it again.",
        )
    found = {}
    for number, line in enumerate(lines, 2):
        name, colon, digits = line.rpartition(": ")
        try:
            found[name] = struct.unpack(">f", bytes.fromhex(digits))[0]
        except (ValueError, struct.error):
            colon = ""
        if not colon:
            raise RecipeError(f"calibration cache: line {number} is no `tensor: hex`", hint="Write it again.")
    return found
