"""Prune the shipped detectors 2:4 for Orin, with and without fitting what stays, and keep how many layers pass.

    python scripts/evidence/sparsity.py            # three detectors, twice each; about 20 minutes on two cores
    python scripts/evidence/sparsity.py --slice    # three layers on noise, for CI; writes nothing

The guard judges on training images that calibration did not see; the accuracy told is of 200 others.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from detectors import commit
from options import options_of

from edgekit.calibration.refit import refit
from edgekit.core.files import write_json
from edgekit.graph.onnx_file import inputs_of, read_onnx
from edgekit.graph.sparsity import is_2_4, mask_2_4, prunable
from edgekit.graph.static import fix_shapes
from edgekit.jobs.api import compile_recipe, find_recipe
from edgekit.machine.probe import passport
from edgekit.models.find import shipped_models

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "evidence" / "sparsity.json"
DETECTORS = ("uav-yolov8n", "hierlight-yolo-n-mini", "ms-yolo-mini")


def row(name: str, *, fitted: bool, folder: Path) -> dict[str, Any]:
    """Return what pruning one detector gave."""
    text = find_recipe(name).read_text()
    step = f"  - sparsify-2-4: {{max_drop: 0.01, refit: {str(fitted).lower()}}}\n"
    recipe = folder / f"{name}.yaml"
    recipe.write_text(text.replace("  - simplify\n", f"  - simplify\n{step}", 1))
    done = compile_recipe(
        str(recipe), device="jetson-orin", output=str(folder / "out"), precision="fp16", quick=True
    )
    facts = done.outcome.passes["sparsify-2-4"]
    accuracy = done.outcome.variants[0].accuracy
    assert accuracy
    kept = ("state", "layers", "sparse_layers", "float", "kept", "runs")
    return {
        "detector": name, "fitted": fitted, **{k: facts.get(k) for k in kept}, "map50": accuracy.value, "images": accuracy.images,
    }  # fmt: skip


def few() -> int:
    """Prune and fit three layers of a shipped detector on noise; return how many have the pattern then."""
    model = fix_shapes(read_onnx(shipped_models()["uav-yolov8n"]), imgsz=64, where="uav-yolov8n")
    (spec,) = inputs_of(model)
    noise = [{spec.name: np.random.default_rng(k).random(spec.shape, np.float32)} for k in range(2)]
    layers = [n.name for n in prunable(model)][:3]
    return sum(is_2_4(one.weight, 1) for one in refit(model, layers, noise, mask_2_4, seed=0).values())


def main() -> None:
    """Prune all and keep the rows."""
    given = options_of(__doc__, KEPT).parse_args()
    if given.slice:
        print(json.dumps({"layers": few()}))
        return
    rows = []
    for name in DETECTORS:
        for fitted in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(row(name, fitted=fitted, folder=Path(folder)))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    write_json(given.out, {"machine": dict(passport()), "commit": commit(), "rows": rows})
    print(json.dumps({"rows": len(rows)}))


if __name__ == "__main__":
    main()
