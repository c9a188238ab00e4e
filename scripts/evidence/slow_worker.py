"""A measuring process whose model is slower by a known share: the planted slowdown of `compare.py`.

    python scripts/evidence/slow_worker.py 0.08

The model runs as always; then the process spins until the time is longer by that share.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from edgekit.measure import worker

SHARE = float(sys.argv[1])


class Slow(worker.Worker):
    """Runs as the real one and a little longer."""

    def _model(self, given: Any) -> float:
        took = super()._model(given)
        ends = time.perf_counter_ns() + int(SHARE * took * 1e6)
        while time.perf_counter_ns() < ends:
            pass
        return took * (1 + SHARE)


worker.Worker = Slow  # type: ignore[misc]
worker.main()
