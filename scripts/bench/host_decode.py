"""Time a shipped detector with its decoder in the network against the same with it on the host.

    python scripts/bench/host_decode.py             # about ten minutes on two cores
    python scripts/bench/host_decode.py --runs 16   # a first look; nothing is kept

Each of the contenders runs in a process of its own, alternating in one contest: both engines, float32
and int8, OpenVINO's int8 with a float32 and a bfloat16 tail.
"""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
from pathlib import Path

from edgekit.core.files import write_json
from edgekit.jobs.api import ask_for, checked_recipe
from edgekit.jobs.data import open_data, timing_frames
from edgekit.jobs.model import find_model, load_model
from edgekit.jobs.passes import run_passes
from edgekit.jobs.variants import Lowered, Wanted, lowered
from edgekit.measure.contest import contest
from edgekit.measure.percentiles import median
from edgekit.recipe.check import check_recipe

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPE = "hierlight-yolo-n-mini"
WANTED = (
    ("onnxruntime", "fp32", ""), ("onnxruntime", "int8", ""), ("openvino", "fp32", ""),
    ("openvino", "int8", "uint8"), ("openvino", "int8", "uint8+bf16"),
)  # fmt: skip
SPANS = ("model", "frame_to_result")
_KEPT_FROM = 64


def contenders(decode: str) -> tuple[dict[str, Lowered], list[Path], dict[str, object]]:
    """Return the variants of the recipe with the decoder where `decode` says, and frames to time them on."""
    plain = checked_recipe(RECIPE)
    text = plain.text.replace("export: {imgsz: 640}", f"export: {{imgsz: 640, decode: {decode}}}")
    ask = ask_for(check_recipe(text, path=plain.path, folder=plain.folder))
    data = open_data(ask)
    assert data
    loaded = load_model(ask, find_model(ask, len(data.names)), data.calibration, data.names)
    layout = loaded.network.contract.answers.layout
    assert layout == {"host": "yolov8-logits", "network": "yolov8"}[decode], layout
    networks = run_passes(ask, loaded.network, data)
    threads = int(ask.passport["cores_physical"])
    found = {}
    for backend, precision, style in WANTED:
        wanted = Wanted(backend=backend, precision=precision, style=style, threads=threads)
        found[f"{backend} {precision} {style}".strip()] = lowered(ask, networks, wanted)
    return found, timing_frames(data, loaded.network.contract), ask.passport


def main() -> None:
    """Hold one contest a pair and keep medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=256)
    args = parser.parse_args()
    network, files, passport = contenders("network")
    host, _, _ = contenders("host")
    rows = []
    for name in network:
        pair = {"network": network[name].artifact, "host": host[name].artifact}
        made = contest(pair, files, runs=args.runs, seconds=0.0, limit_s=300.0, spans=SPANS, receipts=False)
        for span in SPANS:
            one, other = (median(made[k].spans[span]) for k in ("network", "host"))
            rows.append(
                {
                    "variant": name,
                    "span": span,
                    "network_ms": one,
                    "host_ms": other,
                    "times_as_fast": one / other,
                }
            )
            print(f"{name:<28} {span:<16} {one:7.2f} {other:7.2f} ms  {one / other:.2f} x", flush=True)
    if args.runs < _KEPT_FROM:
        return
    today = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    kept = {
        "date": today, "commit": commit.stdout.strip(), "recipe": RECIPE, "runs": args.runs, "rows": rows,
        "machine": {k: passport[k] for k in ("cpu", "isa", "cores_physical", "engines")},
    }  # fmt: skip
    write_json(ROOT / "docs" / "evidence" / f"host_decode-{today}.json", kept)


if __name__ == "__main__":
    main()
