"""How far predictions are off for TensorRT: on held-out rows by family, and for devices without any row.

    python scripts/evidence/predictor.py            # seconds
    python scripts/evidence/predictor.py --slice    # the same; writes nothing

"Held out" is the split that the shipped fit never saw (a quarter of the rows, by hash). "Leave one device out"
fits without every row of a device, held-out ones included, and predicts all of its TensorRT rows: what a user of
a board that nobody published gets. Kernel weights stay as shipped; they were fitted with the other rows of these devices.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from detectors import commit
from options import options_of

from edgekit.core.files import write_json
from edgekit.predict.latency import point, predict, question
from edgekit.predict.process import Fitted
from edgekit.predict.rows import Row, family_of, held_out, place_of, rows, size_of

KEPT = Path(__file__).resolve().parents[2] / "docs" / "evidence" / "predictor.json"


def of_tensorrt(row: Row) -> bool:
    """Return whether a row is of TensorRT and its model's size is known."""
    return place_of(row.device, row.backend)[1] == "tensorrt" and size_of(row) is not None


def told(errors: list[float]) -> dict[str, Any]:
    """Return rows, median and worst of some relative errors."""
    return {
        "rows": len(errors), "median": round(float(np.median(errors)), 4), "worst": round(max(errors), 4),
        "within_10_percent": round(float(np.mean(np.array(errors) <= 0.1)), 3),
    }  # fmt: skip


def by_family() -> dict[str, Any]:
    """Return the errors on held-out TensorRT rows of each family, and of all."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows():
        if held_out(row) and of_tensorrt(row):
            error = abs(predict(question(row)).ms / row.latency_ms - 1)
            found[family_of(row.model)].append(error)
            found["all"].append(error)
    return {k: told(v) for k, v in sorted(found.items())}


def by_device() -> dict[str, Any]:
    """Return the errors on each device's TensorRT rows, predicted without any row of that device."""
    known = [r for r in rows() if size_of(r)]
    devices = sorted({place_of(r.device, r.backend)[0] for r in known if of_tensorrt(r)})
    found: dict[str, Any] = {}
    every: list[float] = []
    for device in devices:
        mine = [r for r in known if place_of(r.device, r.backend)[0] == device]
        others = [r for r in known if place_of(r.device, r.backend)[0] != device and not held_out(r)]
        fitted = Fitted([point(r) for r in others], [r.latency_ms for r in others])
        asked = [r for r in mine if of_tensorrt(r)]
        means, _ = fitted.predict([point(r) for r in asked])
        errors = [abs(math.exp(float(m)) / r.latency_ms - 1) for m, r in zip(means, asked, strict=True)]
        found[device] = told(errors)
        every += errors
    return {**found, "all": told(every)}


def main() -> None:
    """Print and keep both tables."""
    given = options_of(__doc__, KEPT).parse_args()
    kept = {"commit": commit(), "held_out_by_family": by_family(), "leave_one_device_out": by_device()}
    print(json.dumps(kept, indent=2))
    if not given.slice:
        write_json(given.out, kept)


if __name__ == "__main__":
    main()
