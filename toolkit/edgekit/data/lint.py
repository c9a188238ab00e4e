"""Warn of calibration data that would mislead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError
from edgekit.data.sample import Sample

# Below 32 samples the first layers' ranges depend on the seed; at 128 they have settled.
FEWEST, FEW = 32, 128


def lint_calibration(calibration: Sequence[Sample], validation: Sequence[Sample]) -> list[str]:
    """Return warnings about the samples; read every file once.

    Raises:
        RecipeError: There are none, or fewer than 32, or one is missing.
    """
    if len(calibration) < FEWEST:
        raise RecipeError(
            f"calibration has {len(calibration)} samples, {FEWEST} are needed",
            hint="Give more training images, or set data.samples higher.",
        )
    for sample in (*calibration, *validation):
        if not sample.path.is_file():
            raise RecipeError(f"{sample.path}: no such image", hint="Correct the data set.")
    warnings = []
    if len(calibration) < FEW:
        warnings.append(f"calibration has {len(calibration)} samples; ranges settle at {FEW} or more")
    found = Counter(digest_file(s.path) for s in calibration)
    if twice := sum(n - 1 for n in found.values()):
        warnings.append(f"{twice} calibration images are copies of others")
    leaked = sum(digest_file(s.path) in found for s in validation)
    if leaked:
        warnings.append(f"{leaked} validation images are among the calibration images")
    return warnings
