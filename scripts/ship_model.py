"""Put trained weights into models/: fp16 safetensors, and ONNX with free height and width.

    python scripts/ship_model.py hierlight-yolo-n-uav docs/evidence/detectors/uav-mini-hierlight-yolo-n-s0.json \\
        --work /somewhere

The JSON file is a run of `scripts/evidence/detectors.py`, `--work` its folder. Without them the ONNX
file of a model that is shipped already is written anew from its safetensors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from edgekit.core.files import write_bytes
from edgekit.core.places import shipped
from edgekit.export.torch_onnx import to_onnx
from edgekit.graph.half import store_half
from edgekit.graph.onnx_file import save_onnx
from edgekit.graph.static import slim
from edgekit.jobs.train import packed
from edgekit.models.find import find_by_name
from edgekit.models.torch_models import build, for_export
from edgekit.models.weights import read_header

# What of a run stands in the header of its weights.
_RECORD = ("set", "seed", "settings", "images", "history", "torch", "machine", "date", "commit")


def write_weights(name: str, run: dict[str, Any], work: Path) -> None:
    """Write `models/NAME.safetensors` from a finished run."""
    record = {"architecture": run["model"], "classes": run["classes"], "options": run["options"]}
    record |= {k: run[k] for k in _RECORD}
    tensors = load_file(work / run["weights"] / "best.safetensors")
    write_bytes(shipped("models") / f"{name}.safetensors", packed(tensors, record))


def write_onnx(name: str) -> None:
    """Write `models/NAME.onnx` from `models/NAME.safetensors`."""
    folder = shipped("models")
    weights = folder / f"{name}.safetensors"
    header = read_header(weights)
    built = build(find_by_name(header.architecture, weights=weights))
    model = slim(to_onnx(for_export(built.module), (1, 3, 640, 640), opset=17, free_size=True), where=name)
    facts = {
        "task": "detect", "names": str(dict(enumerate(header.classes))), "license": header.licence,
        "stride": str(built.stride),
    }  # fmt: skip
    del model.metadata_props[:]
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    save_onnx(store_half(model), folder / f"{name}.onnx")


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the shipped model")
    parser.add_argument("run", type=Path, nargs="?", help="JSON of a run")
    parser.add_argument("--work", type=Path, help="folder of the run's weights")
    args = parser.parse_args()
    if args.run:
        write_weights(args.name, json.loads(args.run.read_text()), args.work)
    write_onnx(args.name)


if __name__ == "__main__":
    main()
