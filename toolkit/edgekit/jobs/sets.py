"""Data sets that edgekit draws, and published ones that it converts."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.errors import RecipeError
from edgekit.core.plugins import suggestion
from edgekit.data.convert import LAYOUTS, convert
from edgekit.data.converted import Converted
from edgekit.data.make import GENERATED
from edgekit.data.raw_sets import RAW_SETS
from edgekit.data.wearables import WEARABLES, Cut


def drawable() -> dict[str, str]:
    """Return the sets that edgekit draws, with a line each."""
    return {n: g.what for n, g in GENERATED.items()}


def convertible() -> dict[str, str]:
    """Return the published sets that it converts, with a line each."""
    found = {n: x.what for n, x in LAYOUTS.items()}
    found |= {n: what for n, (what, _) in RAW_SETS.items()}
    return found | {n: what for n, (what, _, _) in WEARABLES.items()}


def converted(
    name: str,
    source: Path,
    out: Path,
    *,
    position: str = "",
    window: int = 128,
    bits: int = 12,
    range_g: float = 8.0,
) -> Converted:
    """Write a published set in edgekit's layout.

    Args:
        name: One of `convertible()`.
        source: Its folder, as it was unpacked.
        out: A folder that does not exist yet or is empty.
        position: Of recordings at several places: which one; empty takes the set's usual one.
        window: Samples of a window of a recording.
        bits: Of the sensor to which recordings are rounded.
        range_g: Its range.

    Raises:
        RecipeError: There is no such set, its files are not there, or `out` is taken.
        MissingError: An extra is not installed.
        ResourceError: No space or no permission.
    """
    if name not in convertible():
        raise RecipeError(f"data convert: no set {name!r}", hint=suggestion(name, convertible()))
    if name in LAYOUTS:
        return convert(name, source, out)
    if name in RAW_SETS:
        return RAW_SETS[name][1](source, out)
    if not 8 <= window <= 65536 or not 2 <= bits <= 16 or not range_g > 0:
        raise RecipeError(
            "data convert: --window goes from 8 to 65536, --bits from 2 to 16, --range-g is above 0",
            hint="Correct it.",
        )
    _, usual, made = WEARABLES[name]
    cut = Cut(position=position or usual, window=window, bits=bits, range_g=range_g)
    return made(source, out, cut)
