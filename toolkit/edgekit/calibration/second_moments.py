"""Stream second moments of what layers take and give: E[rows' rows], not centred, never the rows themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import ContractError
from edgekit.core.files import write_bytes, write_json
from edgekit.core.lazy import need

Matrix = NDArray[np.float64]
# Up to this width sums are kept in float64; a hidden layer of 5,120 would take 210 MB in it.
_DOUBLE = 1024


@dataclass(frozen=True, kw_only=True)
class Tap:
    """Values whose moments are wanted.

    Attributes:
        name: Of the moments.
        module: Path of a linear layer.
        side: Its input or its output.
        blocks: Equal parts of the last axis that are looked at each alone, such as heads.
        width: Of the last axis.
    """

    name: str
    module: str
    side: Literal["in", "out"]
    blocks: int
    width: int

    @property
    def size_mb(self) -> float:
        """Memory of the sums in 1e6 bytes."""
        part = self.width // self.blocks
        return self.blocks * part * part * (8 if part <= _DOUBLE else 4) / 1e6


class SecondMoments:
    """Sums of a set of taps.

    Args:
        taps: What is summed.
        tokens: Rows drawn at random of each sample and call; 0 takes all.
        seed: Of the draw.
    """

    def __init__(self, taps: Sequence[Tap], *, tokens: int, seed: int) -> None:
        self.taps = {t.name: t for t in taps}
        self.weight = 0.0  # of what runs now; 0 records nothing
        self._tokens, self._seed, self._calls = tokens, seed, 0
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, float] = {}
        self.rows: dict[str, int] = {}  # of one sample, by tap

    @contextmanager
    def watching(self, network: Any) -> Iterator[None]:
        """Sum whatever runs through the network inside the block, while `weight` is not 0."""
        hooks = []
        for tap in self.taps.values():
            layer = network.get_submodule(tap.module)
            if tap.side == "in":
                hooks.append(layer.register_forward_pre_hook(self._entering(tap)))
            else:
                hooks.append(layer.register_forward_hook(self._leaving(tap)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _entering(self, tap: Tap) -> Callable[..., None]:
        return lambda _, given: self._add(tap, given[0])

    def _leaving(self, tap: Tap) -> Callable[..., None]:
        return lambda _, __, found: self._add(tap, found)

    def _add(self, tap: Tap, values: Any) -> None:
        """Add values (N, tokens, width) of one call.

        Raises:
            ContractError: A value is not finite.
        """
        if not self.weight:
            return
        torch = need("torch", extra="diffusion")
        rows = values.detach().reshape(values.shape[0], -1, values.shape[-1])
        self.rows[tap.name] = int(rows.shape[1])
        if self._tokens and rows.shape[1] > self._tokens:
            # All taps of a call look at the same places.
            draw = np.random.default_rng([self._seed, self._calls, rows.shape[1]])
            at = np.sort(draw.choice(rows.shape[1], self._tokens, replace=False))
            rows = rows[:, torch.from_numpy(at)]
        part = tap.width // tap.blocks
        dtype = torch.float64 if part <= _DOUBLE else torch.float32
        rows = rows.reshape(-1, tap.blocks, part).transpose(0, 1).to(dtype)
        found = rows.transpose(1, 2) @ rows
        if not bool(torch.isfinite(found).all()):
            raise ContractError(
                f"{tap.module}: its {'inputs' if tap.side == 'in' else 'outputs'} are not finite during calibration",
                hint="Look for NaN or infinity in the weights, or overflow in float16: calibrate in float32.",
            )
        if tap.name not in self._sums:
            self._sums[tap.name] = torch.zeros_like(found)
            self._counts[tap.name] = 0.0
        self._sums[tap.name].add_(found, alpha=self.weight)
        self._counts[tap.name] += self.weight * rows.shape[1]

    def next_call(self) -> None:
        """Let the next run of the network draw other tokens."""
        self._calls += 1

    def save(self, folder: Path) -> None:
        """Write the mean of each tap as `NAME.npy`, (blocks, width / blocks, width / blocks), and `rows.json`.

        Raises:
            ContractError: Nothing ran through a tap.
        """
        import io

        for name, tap in self.taps.items():
            if not self._counts.get(name):
                raise ContractError(
                    f"{tap.module}: nothing ran through it during calibration",
                    hint="Report it with the model's architecture.",
                )
            buffer = io.BytesIO()
            np.save(buffer, (self._sums[name] / self._counts[name]).cpu().numpy())
            write_bytes(folder / file_name(name), buffer.getvalue())
        write_json(folder / "rows.json", self.rows)


def file_name(tap: str) -> str:
    """Return the file of a tap's moments."""
    return f"{tap.replace(':', '+')}.npy"


class Kept(Mapping[str, Matrix]):
    """Moments in folders; each is read anew, in float64, when it is asked for."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files = {p.stem.replace("+", ":"): p for f in folders for p in sorted(f.glob("*.npy"))}

    def __getitem__(self, name: str) -> Matrix:
        return np.asarray(np.load(self._files[name]), np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def in_groups(taps: Sequence[Tap], limit_mb: float) -> list[list[Tap]]:
    """Return taps in groups whose sums fit into `limit_mb` each, in order; a larger one stands alone."""
    groups: list[list[Tap]] = []
    held = 0.0
    for tap in taps:
        if not groups or held + tap.size_mb > limit_mb:
            groups.append([])
            held = 0.0
        groups[-1].append(tap)
        held += tap.size_mb
    return groups
