"""Say where a compiled detector spends its time: backbone, neck, and the head's branches by level.

    python scripts/evidence/levels.py out/hierlight-yolo-n-mini-local/bundle --name hierlight-yolo-n-uav

Shares are those of the engine's own profiler on the bundle's golden frames.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from detectors import ROOT, commit

from edgekit.bundle.read import open_bundle
from edgekit.core.files import write_json
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact
from edgekit.frames.prepare import prepare
from edgekit.machine.probe import passport


def part_of(names: tuple[str, ...], head: int, first_neck: int) -> str:
    """Return the part of the network that a fused layer belongs to, by its modules' numbers."""
    for name in names:
        if found := re.search(r"model\.(\d+)/(?:cv([23])\.(\d+))?", name):
            number = int(found[1])
            if number == head and found[3]:
                return f"head, level {int(found[3]) + 1} ({'boxes' if found[2] == '2' else 'classes'})"
            return "head, joining" if number == head else "neck" if number >= first_neck else "backbone"
    return "elsewhere"


def main() -> None:
    """Profile the first variant of a bundle and keep the shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--head", type=int, default=32, help="number of the Detect layer")
    parser.add_argument("--neck", type=int, default=10, help="number of the first neck layer")
    args = parser.parse_args()
    bundle = open_bundle(args.bundle, trusted_key=None)
    variant = bundle.manifest.variants[0]
    contract = bundle.manifest.contract
    assert contract.frames
    frame = np.load(args.bundle / "golden" / "frame0.npy")
    shape = contract.inputs[0].shape
    tensor, _ = prepare(frame, contract.frames, (shape[2], shape[3]))
    artifact = Artifact(
        backend=variant.backend, precision=variant.precision, main=args.bundle / variant.main, contract=contract,
        options=variant.options,
    )  # fmt: skip
    rows = pick("backends", variant.backend, what="backend").receipt(
        artifact, {contract.inputs[0].name: tensor}
    )
    parts: dict[str, float] = defaultdict(float)
    kinds: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        part = part_of((*row.covers, row.name), args.head, args.neck)
        parts[part] += row.share
        if row.share > 0.001:
            kinds[part].add(row.dtype)
    today = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d")
    facts = passport()
    kept = {
        "date": today, "commit": commit(), "machine": {k: facts[k] for k in ("cpu", "isa", "cores_physical")},
        "variant": variant.name, "parts": {k: round(v, 4) for k, v in sorted(parts.items())},
        "dtypes": {k: sorted(v) for k, v in sorted(kinds.items())},
    }  # fmt: skip
    write_json(ROOT / "docs" / "evidence" / f"levels-{args.name}-{today}.json", kept)
    for name, share in sorted(parts.items()):
        print(f"{name:<28} {100 * share:5.1f} %  {' '.join(sorted(kinds[name]))}")


if __name__ == "__main__":
    main()
