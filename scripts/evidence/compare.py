"""How often comparisons cry wolf, and how often they find what was planted.

    python scripts/evidence/compare.py            # 50 A/A and 20 planted 8 % slowdowns; about 40 minutes
    python scripts/evidence/compare.py --slice    # 1 of the first, for CI; writes nothing

Resumable: each trial is kept as it ends. The net is a 96-px detector of at most 3 ms on one thread.
Afterwards the blocks of all A/A trials are resampled 10,000 times: pairs of 10 blocks a side from one trial.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from detectors import commit
from options import options_of

from edgekit.core.comparison import NOTHING, REGRESSION, Comparison
from edgekit.core.digest import plain
from edgekit.core.files import write_json
from edgekit.core.result import Subject
from edgekit.core.wire import artifact_from
from edgekit.jobs.parcel import parcel_of
from edgekit.machine.probe import passport
from edgekit.measure.blocks import ratio_of
from edgekit.measure.versus import WORKER, versus

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "evidence" / "compare.json"
PLANTED, SIDE, RESAMPLINGS, BLOCKS = 0.08, 128, 10_000, 10


def trial(model: Path, share: float, number: int) -> Comparison:
    """Return one comparison of the net with itself, B slower by `share`."""
    slow = (str(Path(__file__).with_name("slow_worker.py")), str(share))
    with parcel_of(model, imgsz=SIDE) as parcel:
        main = str(parcel.sources[parcel.artifact["main"]])
        artifact = artifact_from({**parcel.artifact, "main": main, "options": {"threads": 1}})
        subject = Subject(**parcel.subject, backend=artifact.backend, precision=artifact.precision, threads=1)
        when = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return versus(
            (artifact, artifact), (subject, subject), [], span="model", when=when, device="local", seed=number,
            workers=(WORKER, slow if share else WORKER),
        )  # fmt: skip


def row(found: Comparison) -> dict[str, Any]:
    """Return what is kept of a trial."""
    return {
        "when": found.when, "ratio": plain(found.median), "p90": plain(found.ratios[1]), "spread": found.spread,
        "a": [m for m, _ in found.blocks_a], "b": [m for m, _ in found.blocks_b],
    }  # fmt: skip


def alarms(rows: list[dict[str, Any]], count: int) -> int:
    """Return how many of `count` resampled A/A comparisons, 10 blocks a side of one trial, end in an alarm."""
    rng = np.random.default_rng(0)
    found = 0
    for k in range(count):
        one = rows[k % len(rows)]
        pool = np.array([*one["a"], *one["b"]])
        a, b = (rng.choice(pool, BLOCKS) for _ in range(2))
        found += ratio_of("median", a, b, seed=k).verdict != NOTHING
    return found


def summary(kept: dict[str, Any], count: int) -> dict[str, Any]:
    """Return the figures of all trials."""
    same, planted = kept["same"], kept["planted"]
    fair = [r for r in planted if r["ratio"]["smallest"] < PLANTED]
    return {
        "same": len(same), "same_alarms": sum(r["ratio"]["verdict"] != NOTHING for r in same),
        "resamplings": count, "resampled_alarms": alarms(same, count),
        "planted": len(planted), "planted_fair": len(fair),
        "planted_found": sum(r["ratio"]["verdict"] == REGRESSION for r in fair),
        "median_ms": float(np.median([r["ratio"]["a_ms"] for r in same])),
        "spread_median": float(np.median([r["spread"] for r in same])),
        "smallest_median": float(np.median([r["ratio"]["smallest"] for r in same])),
    }  # fmt: skip


def main() -> int:
    """Run the trials that are missing; print and keep the figures."""
    args = options_of(__doc__, KEPT).parse_args()
    wanted = {"same": 1, "planted": 0} if args.slice else {"same": 50, "planted": 20}
    kept: dict[str, Any] = {"same": [], "planted": []}
    if args.out.is_file() and not args.slice:
        kept = {**kept, **json.loads(args.out.read_text())}
    model = ROOT / "models" / "uav-yolov8n.onnx"
    for kind, share in (("same", 0.0), ("planted", PLANTED)):
        while len(kept[kind]) < wanted[kind]:
            found = row(trial(model, share, len(kept[kind])))
            kept[kind].append(found)
            print(
                kind,
                len(kept[kind]),
                found["ratio"]["verdict"],
                f"{found['ratio']['smallest']:.3f}",
                flush=True,
            )
            if not args.slice:
                write_json(args.out, {**kept, "commit": commit(), "machine": passport()})
    found = summary(kept, 200 if args.slice else RESAMPLINGS)
    print(json.dumps(found, indent=2))
    if not args.slice:
        write_json(args.out, {**kept, "summary": found, "commit": commit(), "machine": passport()})
    if args.slice:
        return int(found["same_alarms"] > 0)
    bad = found["same_alarms"] or found["resampled_alarms"] > 0.01 * found["resamplings"]
    return int(bool(bad) or found["planted_found"] < 0.9 * found["planted_fair"])


if __name__ == "__main__":
    sys.exit(main())
