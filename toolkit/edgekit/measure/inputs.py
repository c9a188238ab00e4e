"""Draw the inputs of a timing loop from real frames, or from a seed where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.records import Contract, Frames
from edgekit.frames.coded import read_frame
from edgekit.frames.prepare import prepare

_POOL = 16
# Frames are kept in memory; beyond this, further ones are left out.
_FRAMES_MB = 400
# Prepared inputs wait in memory for the runs of one burst; a 640-px float32 input takes 4.9 MB.
_READY_MB = 100


class Inputs:
    """Gives each run its own input: a seeded draw with replacement, prepared outside the timer."""

    def __init__(self, contract: Contract, files: Sequence[Path], *, seed: int) -> None:
        self._contract = contract
        self._rng = np.random.default_rng(seed)
        self.frames = _frames(files, contract.frames)
        self._pool: list[dict[str, NDArray[Any]]] = []
        self._made = [] if self.frames else [self._random() for _ in range(_POOL)]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image input in pixels."""
        shape = self._contract.inputs[0].shape
        return shape[2], shape[3]

    def frame(self) -> NDArray[Any]:
        """Return one of the frames."""
        return self.frames[int(self._rng.integers(len(self.frames)))]

    def draw(self) -> dict[str, NDArray[Any]]:
        """Return the inputs of one run by name."""
        if not self.frames:
            return self._made[int(self._rng.integers(len(self._made)))]
        assert self._contract.frames
        tensor, _ = prepare(self.frame(), self._contract.frames, self.size)
        return {self._contract.inputs[0].name: tensor}

    def ready(self, count: int) -> list[dict[str, NDArray[Any]]]:
        """Return the inputs of the next `count` runs, or as many as fit in 100 MB: those are then used again.

        They are prepared before the timer starts, so that no letterbox empties the caches between runs.
        """
        first = self.draw()
        size = sum(v.nbytes for v in first.values())
        fits = max(int(_READY_MB * 1e6 / max(size, 1)), 1)
        return [first, *(self.draw() for _ in range(min(count, fits) - 1))]

    def pool(self, count: int) -> list[dict[str, NDArray[Any]]]:
        """Return the inputs of the next `count` runs out of a pool that is prepared once, at the first call.

        A run alone on a machine whose power is read must not prepare inputs between its bursts: that work
        would be taken for the model's.
        """
        if not self._pool:
            self._pool = self.ready(max(len(self.frames), _POOL))
        return [self._pool[int(k)] for k in self._rng.integers(len(self._pool), size=count)]

    def _random(self) -> dict[str, NDArray[Any]]:
        return random_inputs(self._contract, self._rng)


def _frames(files: Sequence[Path], spec: Frames | None) -> list[NDArray[Any]]:
    """Return the frames of the files, as many as fit into the memory set aside for them."""
    found: list[NDArray[Any]] = []
    size = 0
    for path in files:
        frame = read_frame(path, spec)
        size += frame.nbytes
        if found and size > _FRAMES_MB * 1e6:
            break
        found.append(frame)
    return found


def random_inputs(contract: Contract, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Return one set of random inputs: floats from a normal distribution, integers 0 or 1."""
    made: dict[str, NDArray[Any]] = {}
    for spec in contract.inputs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            made[spec.name] = rng.standard_normal(spec.shape, np.float32).astype(dtype)
        else:
            made[spec.name] = rng.integers(0, 2, spec.shape).astype(dtype)
    return made
