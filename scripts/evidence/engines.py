"""Build the TensorRT engines of bundles on the board that this runs on, run them, and keep what came of it.

    python scripts/evidence/engines.py out/*/bundle --data uav.yaml --out engines.json
    python scripts/evidence/engines.py --slice            # says whether this machine could; writes nothing

It runs where the engine will run, with `edgekit[host]` and the board's own `tensorrt`. Each engine is
built, found again, held against float32 of onnxruntime on the same frames, timed with and without a CUDA graph,
read by the inspector, and judged on labelled images where the bundle is a detector and `--data` names a set.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from options import options_of

from edgekit.backends import engines
from edgekit.backends.tensorrt import opened
from edgekit.backends.trt_inspector import reformat_share
from edgekit.bundle.manifest import Variant
from edgekit.bundle.read import Bundle, open_bundle
from edgekit.core.errors import EdgekitError
from edgekit.core.files import write_json
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, LayerRun
from edgekit.data.dataset import read_split
from edgekit.data.sample import Sample
from edgekit.jobs.accuracy import detections_of, truths_of
from edgekit.jobs.trial import as_asked, share_as_planned
from edgekit.machine.probe import passport
from edgekit.measure.inputs import Inputs
from edgekit.measure.parity import largest_error
from edgekit.metrics.coco_map import drop_interval, score

KEPT = Path("engines.json")
_FRAMES, _RUNS, _METRIC = 8, 200, "map50"


def main() -> None:
    """Build and judge every TensorRT variant of the bundles; keep the rows after each."""
    parser = options_of(__doc__, KEPT)
    parser.add_argument("bundles", nargs="*", type=Path, help="folders or .ekb files")
    parser.add_argument("--data", type=Path, help="data.yaml of a detector's labelled images")
    parser.add_argument("--limit", type=int, default=200, help="validation images at most")
    given = parser.parse_args()
    if given.slice:
        print(json.dumps({"tensorrt": _whether()}))
        return
    split = read_split(given.data, "val") if given.data else None
    rows = []
    for path in given.bundles:
        bundle = open_bundle(path)
        for variant in bundle.manifest.variants:
            if variant.engine == "in-bundle":
                continue
            samples = split.samples[: given.limit] if split else ()
            rows.append(row(bundle, variant, samples, split.names if split else ()))
            write_json(
                given.out, {"machine": dict(passport()), "board": vars(engines.probed()), "rows": rows}
            )
            shown = {k: v for k, v in rows[-1].items() if k not in {"layers", "accuracy"}}
            print(json.dumps(shown), file=sys.stderr, flush=True)
        bundle.close()
    print(json.dumps({"rows": len(rows), "failed": sum("error" in r for r in rows)}))


def _whether() -> str:
    try:
        return engines.probed().tensorrt
    except EdgekitError as error:
        return error.message


def row(bundle: Bundle, variant: Variant, samples: Sequence[Sample], names: Sequence[str]) -> dict[str, Any]:
    """Return what one variant's engine gave, or why there is none."""
    artifact = variant.artifact(bundle.folder, bundle.manifest.contract)
    build = json.loads((artifact.folder / "build.json").read_text())
    said = {"bundle": bundle.manifest.name, "precision": variant.precision, "target": build["target"]}
    try:
        begun = time.perf_counter()
        first = engines.built(artifact.folder)
        middle = time.perf_counter()
        again = engines.built(artifact.folder)
        found = {
            **said, "engine": first, "build_s": round(middle - begun, 1), "found_again": not again["fresh"],
            "found_s": round(time.perf_counter() - middle, 2),
        }  # fmt: skip
        plain = _float32(bundle)
        found |= _ran(
            replace(artifact, wanted=build["wanted"]),
            Path(first["plan"]),
            plain,
            [s.path for s in samples[:_FRAMES]],
        )
        if samples and artifact.contract.answers.task == "detect":
            found["accuracy"] = _judged(artifact, plain, samples, names)
    except EdgekitError as error:
        return {**said, "error": f"{type(error).__name__}: {error.message}"}
    return found


def _float32(bundle: Bundle) -> Artifact:
    plain = next(v for v in bundle.manifest.variants if v.backend == "onnxruntime" and v.precision == "fp32")
    return plain.artifact(bundle.folder, bundle.manifest.contract)


def _ran(artifact: Artifact, plan: Path, plain: Artifact, files: Sequence[Path]) -> dict[str, Any]:
    """Hold the engine's outputs against float32's, time it, and read its layers."""
    drawn = Inputs(artifact.contract, files, seed=0)
    inputs = [drawn.draw() for _ in range(_FRAMES)]
    with pick("backends", "onnxruntime", what="backend").open(plain) as session:
        wanted = [session.infer(i) for i in inputs]
    engine = opened(plan.read_bytes(), artifact.contract)
    with engine:
        given = [engine.infer(i) for i in inputs]
        same = all(np.array_equal(engine.infer(inputs[0])[k], v) for k, v in given[0].items())
        spent = []
        engine.stage(inputs[0])
        for _ in range(_RUNS):
            begun = time.perf_counter()
            engine.run_staged()
            spent.append((time.perf_counter() - begun) * 1e3)
        layers = engine.profiled(inputs[0])
        gain = engine.graph_gain
    layers = as_asked([vars(one) for one in layers], artifact)
    return {
        "outputs_apart": max(map(largest_error, wanted, given)), "same_twice": same, "graph_gain": round(gain, 3),
        "median_ms": round(float(np.median(spent)), 4), "p90_ms": round(float(np.percentile(spent, 90)), 4),
        "share_as_planned": share_as_planned(layers), "reformat_share": round(reformat_share(layers), 4),
        "share_by_dtype": _by_dtype(layers), "layers": [vars(one) for one in layers],
    }  # fmt: skip


def _by_dtype(layers: Sequence[LayerRun]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in layers:
        found[one.dtype] = round(found.get(one.dtype, 0.0) + one.share, 4)
    return found


def _judged(
    artifact: Artifact, plain: Artifact, samples: Sequence[Sample], names: Sequence[str]
) -> dict[str, Any]:
    """Return mAP of the engine and of float32 in onnxruntime on the same images, with the drop's interval."""
    truths = truths_of(samples)
    own, base = (detections_of(a, samples, what=a.backend) for a in (artifact, plain))
    scores, reference = (score(truths, f, names) for f in (own, base))
    low, high = drop_interval(truths, base, own, len(names), metric=_METRIC)
    return {
        "images": len(samples), _METRIC: scores.map50, "float32": reference.map50,
        "drop": reference.map50 - scores.map50, "interval": [low, high],
    }  # fmt: skip


if __name__ == "__main__":
    main()
