"""Score the weights that `detectors.py` trained, and time the best compiled variant of each.

    python scripts/evidence/detectors_judge.py --work /somewhere            # accuracy, where it is missing
    python scripts/evidence/detectors_judge.py --work /somewhere --latency  # compiles; leave the machine alone

Both write into the run's own JSON file. Accuracy is that of the float32 weights at 640 px on the 500
validation images of the set; AP under 16 px counts objects whose area is below 16 x 16. Latency is
that of `edgekit compile` for this machine in its standard mode, accuracy of its variants
on the first `--limit` images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from detectors import KEPT, commit, data_of

from edgekit.core.digest import plain
from edgekit.core.files import write_bytes, write_json
from edgekit.data.dataset import read_split

SIDE, BANDS = 640, (8.0, 16.0, 32.0)


def accuracy(run: dict[str, Any], work: Path) -> dict[str, Any]:
    """Return counts and scores of a run's weights."""
    from safetensors.torch import load_file

    from edgekit.jobs.accuracy import truths_of
    from edgekit.metrics.coco_map import score
    from edgekit.metrics.operating_point import operating_point
    from edgekit.models.architectures import architecture
    from edgekit.models.find import find_by_name
    from edgekit.models.torch_models import counts, fresh
    from edgekit.training.evaluate import found_by

    split = read_split(data_of(run["set"], work), "val")
    model = fresh(architecture(run["model"], nc=len(split.names), options=run["options"]))
    model.load_state_dict(load_file(work / run["weights"] / "best.safetensors"))
    truths = truths_of(split.samples)
    found = found_by(model.eval().fuse(verbose=False), split.samples, side=SIDE)
    scores, tiny = (
        score(truths, found, split.names, bands=BANDS),
        score(truths, found, split.names, bands=(16.0,)),
    )
    source = find_by_name(run["model"], nc=len(split.names), options=run["options"])
    return {
        "counts": counts(source, imgsz=SIDE),
        "scores": {**plain(scores), "under_16": tiny.by_size["under 16"]},
        "point": plain(operating_point(truths, found, split.names)), "scored_at": commit(),
    }  # fmt: skip


def latency(run: dict[str, Any], work: Path, limit: int) -> dict[str, Any]:
    """Return what a standard compile of a run's weights for this machine found."""
    from safetensors.torch import load_file

    from edgekit.jobs.api import compile_recipe
    from edgekit.jobs.train import packed

    weights = work / run["weights"] / "weights.safetensors"
    record = {
        "architecture": run["model"], "classes": run["classes"], "options": run["options"], "seed": run["seed"],
        "set": run["set"], "settings": run["settings"], "images": run["images"],
    }  # fmt: skip
    write_bytes(weights, packed(load_file(work / run["weights"] / "best.safetensors"), record))
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "row.yaml"
        recipe.write_text(
            f"""schema: edgekit/recipe/v1
model: {{name: {run["model"]}, weights: {weights.resolve()}}}
data: {{path: {data_of(run["set"], work).resolve()}, samples: 256, limit: {limit}}}
passes:
  - simplify
  - quantize-int8: {{max_drop: 0.01}}
export: {{imgsz: {SIDE}}}
gates: {{accuracy_drop: 0.01}}
bench: {{mode: standard}}
"""
        )
        outcome = compile_recipe(recipe, output=Path(folder) / "out").outcome
    chosen = outcome.variants[0]
    return {
        "commit": commit(), "machine": dict(outcome.measured_on), "when": outcome.when,
        "variant": f"{chosen.name} {chosen.style}".strip(), "accuracy": plain(chosen.accuracy),
        "latency": [{"span": x.span, "runs": x.runs, "label": x.label, "percentiles": plain(x.tails)} for x in chosen.latencies],
        "speedup": outcome.speedup, "verdicts": plain(outcome.verdicts), "passes": plain(outcome.passes),
        "variants": [
            {"name": v.name, "style": v.style, "contest_ms": v.contest_ms, "map50": v.accuracy.value if v.accuracy else None}
            for v in outcome.variants
        ],
    }  # fmt: skip


def main() -> None:
    """Add what is missing to every run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="as given to detectors.py")
    parser.add_argument("--out", type=Path, default=KEPT)
    parser.add_argument("--only", help="part of the file's name")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--limit", type=int, default=500, help="validation images of a compile's accuracy")
    args = parser.parse_args()
    for path in sorted(args.out.glob("*.json")):
        run = json.loads(path.read_text())
        key = "compiled" if args.latency else "scores"
        if key in run or (args.only or "") not in path.stem:
            continue
        print(path.stem, flush=True)
        added = (
            {"compiled": latency(run, args.work, args.limit)} if args.latency else accuracy(run, args.work)
        )
        write_json(path, {**run, **added})


if __name__ == "__main__":
    main()
