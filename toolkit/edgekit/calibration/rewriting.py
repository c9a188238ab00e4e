"""What every rewriter can do; a rewriter cuts one kind of functional group to fewer units, without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.calibration.second_moments import Tap
from edgekit.core.errors import RecipeError
from edgekit.core.plugins import family

ROOM = "calibration.rewriters"
Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Site:
    """A group of layers that can be cut.

    Attributes:
        name: Unique: module and rewriter.
        rewriter: Its plug-in.
        module: Path of what it rewrites.
        group: For tables, such as "self-attention QK".
        size: Units there are: the rank of each head, or neurons.
        key: What `slim.json` calls the size.
        multiple: What kernels like the size to be a multiple of.
        rows: Tap whose rows enter on the left.
        context: Tap whose rows are the context; empty where there is none.
        params: Parameters of one unit.
        per_row: Multiply-adds of one unit for each row that enters on the left (queries, tokens).
        per_context: The same for each row of the context.
        per_pair: The same for each pair of both.
    """

    name: str
    rewriter: str
    module: str
    group: str
    size: int
    key: str
    multiple: int
    params: int
    rows: str
    context: str = ""
    per_row: int = 0
    per_context: int = 0
    per_pair: int = 0


@dataclass(frozen=True, kw_only=True)
class Left:
    """A group of layers that stays as it is.

    Attributes:
        module: Its path.
        why: The reason.
    """

    module: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Solved:
    """A group, decomposed by one method.

    Attributes:
        site: The group.
        method: Name of it.
        sizes: At which the error is known, ascending, the last is the whole.
        errors: Relative squared error of the group's product under the calibration moments.
        values: Whatever `rewritten` needs, arrays.
    """

    site: Site
    method: str
    sizes: tuple[int, ...]
    errors: tuple[float, ...]
    values: Mapping[str, NDArray[Any]]

    def error(self, size: float) -> float:
        """Return the error at a size, interpolated; 1 where nothing is left."""
        return float(np.interp(size, (0, *self.sizes), (1.0, *self.errors)))


class Rewriter(Protocol):
    """Cuts one kind of group."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Return its ways to decompose, the best one first."""

    def sites(self, network: Any) -> list[Site | Left]:
        """Return every group of the network, those that must stay with the reason."""

    def taps(self, network: Any, site: Site, method: str) -> list[Tap]:
        """Return whose moments a method needs."""

    def solve(self, network: Any, site: Site, moments: Mapping[str, Matrix], method: str) -> Solved:
        """Decompose the original weights under the moments."""

    def rewritten(self, network: Any, solved: Solved, size: int, moments: Mapping[str, Matrix]) -> Any:
        """Return the module that takes the group's place, with `size` units; the network stays as it is."""


def rewriters() -> dict[str, Rewriter]:
    """Return every rewriter by name."""
    return family(ROOM)


def sites_of(network: Any) -> tuple[list[Site], list[Left]]:
    """Return what can be cut in a network, by name, and what must stay.

    Raises:
        RecipeError: Nothing can be cut.
    """
    found = [one for r in rewriters().values() for one in r.sites(network)]
    sites = sorted((s for s in found if isinstance(s, Site)), key=lambda s: s.name)
    left = list({(s.module, s.why): s for s in found if isinstance(s, Left)}.values())
    if not sites:
        why = f"; {left[0].module}: {left[0].why}" if left else ""
        raise RecipeError(
            f"{type(network).__name__}: has no attention or feed-forward layer that can be cut{why}",
            hint="Leave the pass out for this model.",
        )
    return sites, left


@contextmanager
def cut(network: Any, changes: Sequence[tuple[Solved, int]], moments: Mapping[str, Matrix]) -> Iterator[None]:
    """Let the network hold the groups cut to these sizes inside the block, and its own modules again after it."""
    before = {s.site.module: network.get_submodule(s.site.module) for s, _ in changes}
    try:
        for solved, size in changes:
            rewrite(network, solved, size, moments)
        yield
    finally:
        for path, module in before.items():
            put(network, path, module)


def rewrite(network: Any, solved: Solved, size: int, moments: Mapping[str, Matrix]) -> None:
    """Cut one group for good."""
    if size < solved.site.size:
        made = rewriters()[solved.site.rewriter].rewritten(network, solved, size, moments)
        put(network, solved.site.module, made)


def put(network: Any, path: str, module: Any) -> None:
    """Put a module at a path."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent) if parent else network, name, module)
