"""Make a latency record of single runs, and keep long runs in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.core.outcome import Latency
from edgekit.measure.percentiles import percentile
from edgekit.measure.steady import stability

# A million runs are 8 MB; beyond that every second one is let go, again and again.
_MEMORY = 1 << 20
# A stored result stays below a megabyte.
_STORED = 20_000


def latency(samples_ms: Sequence[float], span: str, publishes: Sequence[float]) -> Latency:
    """Return a sample as a latency with the percentiles a mode publishes."""
    tails = tuple(percentile(samples_ms, share) for share in publishes)
    return Latency(
        span=span, runs=len(samples_ms), label=stability(samples_ms), tails=tails,
        samples_ms=tuple(samples_ms),
    )  # fmt: skip


def thinned(samples_ms: Sequence[float]) -> tuple[float, ...]:
    """Return every k-th single run, so that at most 20,000 are stored; a microsecond is kept."""
    step = -(-len(samples_ms) // _STORED)
    return tuple(round(v, 3) for v in samples_ms[:: max(step, 1)])


class Kept:
    """Single runs in order; of very many every `stride`-th, evenly over the whole run."""

    def __init__(self, most: int = _MEMORY) -> None:
        self.samples: list[float] = []
        self.stride, self.count, self.total_ms = 1, 0, 0.0
        self._most = most

    def extend(self, found: Iterable[float]) -> None:
        """Add runs."""
        for value in found:
            if self.count % self.stride == 0:
                self.samples.append(value)
            self.count += 1
            self.total_ms += value
            if len(self.samples) >= self._most:
                self.samples = self.samples[::2]
                self.stride *= 2
