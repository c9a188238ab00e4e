"""Warn of calibration data that would mislead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edgekit.core.errors import RecipeError

# Below 32 samples the first layers' ranges depend on the seed; at 128 they have settled.
FEWEST, FEW = 32, 128


def lint_calibration(calibration: Sequence[str], validation: Sequence[str]) -> list[str]:
    """Return warnings about samples, given as the SHA-256 of each image.

    Raises:
        RecipeError: There are none, or fewer than 32.
    """
    if len(calibration) < FEWEST:
        raise RecipeError(
            f"calibration has {len(calibration)} samples, {FEWEST} are needed",
            hint="Give more training images, or set data.samples higher.",
        )
    warnings = []
    if len(calibration) < FEW:
        warnings.append(f"calibration has {len(calibration)} samples; ranges settle at {FEW} or more")
    found = Counter(calibration)
    if twice := sum(n - 1 for n in found.values()):
        warnings.append(f"{twice} calibration images are copies of others")
    if leaked := sum(digest in found for digest in validation):
        warnings.append(f"{leaked} validation images are among the calibration images")
    return warnings
