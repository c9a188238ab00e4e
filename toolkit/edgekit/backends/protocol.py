"""What every backend can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.core.records import Artifact, LayerRun

Arrays = Mapping[str, NDArray[np.generic]]


class Session(Protocol):
    """An open model of one engine; a context manager."""

    def __enter__(self) -> Session:
        """Return itself."""

    def __exit__(self, *_: object) -> None:
        """Free the engine."""

    def infer(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Return the outputs by name, arrays of the caller's own."""

    def look(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Return the outputs by name, without a copy: the next call overwrites them."""

    def stage(self, inputs: Arrays) -> None:
        """Put the inputs where the engine reads them."""

    def run_staged(self) -> None:
        """Run on what was staged; outputs stay in the engine."""


class Backend(Protocol):
    """One engine."""

    name: str
    package: str

    def open(self, artifact: Artifact) -> Session:
        """Return an open session.

        Raises:
            MissingError: The engine is not installed.
            RecipeError: The engine cannot read the artifact.
        """

    def receipt(self, artifact: Artifact, inputs: Arrays) -> tuple[LayerRun, ...]:
        """Run once under the engine's own profiler and return each layer as it ran."""

    def refusal(self, machine: Mapping[str, object]) -> str:
        """Return why this engine does not suit the machine, empty when it does."""
