"""Write the shipped detectors, a classifier and a ViT for every TensorRT dialect, and keep what a host can say.

    python scripts/evidence/jetson.py            # 5 networks, 9 targets, int8 and fp16; about an hour on two cores
    python scripts/evidence/jetson.py --slice    # a classifier for two targets, for CI; writes nothing

Finished steps come from the cache, and equal files are judged once, so an interrupted run goes on. No engine
is built: lint, the parser and builder of TensorRT for RTX, and onnxruntime on the same graph are what speaks.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from detectors import commit
from options import options_of

from edgekit.core.errors import EdgekitError
from edgekit.core.files import write_json
from edgekit.core.lazy import need
from edgekit.jobs.api import compile_recipe
from edgekit.machine.probe import passport

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "evidence" / "jetson.json"
TARGETS: list[tuple[str, dict[str, Any]]] = [
    ("jetson-xavier-nx", {"jetpack": "5.1"}), ("jetson-agx-orin", {"jetpack": "6.0"}),
    ("jetson-agx-orin", {"jetpack": "6.2"}), ("jetson-agx-orin", {"jetpack": "6.2", "weak": True}),
    ("jetson-agx-orin", {"jetpack": "7.2"}), ("jetson-agx-thor", {"jetpack": "7.1"}),
    ("jetson-agx-orin", {"tensorrt": "11.4.1"}), ("jetson-agx-orin", {"jetpack": "6.2", "dla": 0}),
    ("jetson-agx-orin", {"tensorrt": "11.4.1", "dla": 0}),
]  # fmt: skip
DETECTORS = ("uav-yolov8n", "hierlight-yolo-n-mini", "ms-yolo-mini")
OTHERS = {"classifier": "mobilenetv3_small_050", "vit": "vit_tiny_patch16_224"}


def recipe_of(name: str, folder: Path) -> str:
    """Return a shipped recipe's name, or write one for a timm network with random weights."""
    if name in DETECTORS:
        return name
    torch, timm = need("torch", extra="train"), need("timm", extra="train")
    torch.manual_seed(0)
    model = timm.create_model(OTHERS[name], pretrained=False).eval()
    path = folder / f"{name}.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 224, 224),),
        str(path),
        opset_version=17,
        dynamo=False,
        input_names=["images"],
    )
    recipe = folder / f"{name}.yaml"
    recipe.write_text(
        f"schema: edgekit/recipe/v1\nmodel: {{path: {path}}}\ndata: {{allow_random: true, samples: 16}}\n"
        "passes: [simplify, quantize-int8]\nbench: {mode: smoke}\n"
    )
    return str(recipe)


def row(name: str, recipe: str, device: str, words: dict[str, Any], precision: str) -> dict[str, Any]:
    """Return what one compile found, or why it refused."""
    asked = {"network": name, "device": device, **words, "precision": precision}
    with tempfile.TemporaryDirectory() as out:
        try:
            done = compile_recipe(recipe, device=device, output=out, precision=precision, quick=True, **words)
        except EdgekitError as error:
            return {**asked, "refused": f"{type(error).__name__}: {error.message}"}
        first = done.outcome.variants[0]
        folder = done.bundle / "variants" / first.name
        build = json.loads((folder / "build.json").read_text())
    accuracy = first.accuracy
    return {
        **asked, "target": build["target"], "outputs_apart": first.parity, "sha256": [b["sha256"] for b in build["builds"]],
        "map50": accuracy.value if accuracy else None, "drop": accuracy.drop if accuracy else None,
        "interval": accuracy.interval if accuracy else None, "images": accuracy.images if accuracy else 0,
        "checks": [vars(c) for c in first.checks], "mb": first.size_mb,
    }  # fmt: skip


def main() -> None:
    """Compile all and keep the rows."""
    given = options_of(__doc__, KEPT).parse_args()
    names = ("classifier",) if given.slice else (*DETECTORS, *OTHERS)
    targets = TARGETS[:3:2] if given.slice else TARGETS
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            recipe = recipe_of(name, Path(folder))
            for device, words in targets:
                for precision in ("int8", "fp16"):
                    found = row(name, recipe, device, words, precision)
                    rows.append(found)
                    states = [c["state"] for c in found.get("checks", [])]
                    said = (
                        found.get("refused")
                        or f"apart {found['outputs_apart']:.1e}, drop {found['drop']}, {states}"
                    )
                    print(name, device, words, precision, said, file=sys.stderr, flush=True)
    kept = {"machine": dict(passport()), "commit": commit(), "rows": rows}
    if not given.slice:
        write_json(given.out, kept)
    print(json.dumps({"rows": len(rows), "refused": sum("refused" in r for r in rows)}))


if __name__ == "__main__":
    main()
