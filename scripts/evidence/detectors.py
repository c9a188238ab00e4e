"""Train the detectors of the comparison tables on the same generated images, one run at a time.

    python scripts/evidence/detectors.py --work /somewhere --seeds 0        # all runs that are missing
    python scripts/evidence/detectors.py --work /somewhere --only uav-mini:hierlight-yolo-n
    python scripts/evidence/detectors.py --slice                            # a minute: nothing is kept

Every run of a set sees the same 20,000 tiles of 320 px in the same order, with the same schedule. A
run that was killed goes on after its last whole epoch. Each finished run leaves one JSON file in
docs/evidence/detectors; `detectors_judge.py` adds what was measured of its weights, and
`tables.py` rebuilds the tables from all of them.
"""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgekit.core.digest import digest_value
from edgekit.core.files import write_json
from edgekit.core.watch import watched_by
from edgekit.data.dataset import read_split
from edgekit.data.make import make_set
from edgekit.machine.probe import passport
from edgekit.training.settings import TrainPart

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "detectors"

_COMMON = TrainPart(
    epochs=2, batch=16, imgsz=320, tile=True, limit=20000, optimizer="adamw", lr=2e-3, momentum=0.9,
    schedule="cosine", warmup_epochs=0.24, average=0.999, mosaic=0, zoom=0, shift=0, hue=0.015,
    saturation=0.4, value=0.3, fliplr=0.5, val_images=0,
)  # fmt: skip
SETTINGS = {
    "uav-mini": replace(_COMMON, flipud=0.5, turns=0.5),
    "thermal-mini": _COMMON,
}
SLIDE = {"loss": "slide"}
LIGHT = {"head": "light"}
# Set, row of the table: model, its options, what differs in training.
RUNS: dict[tuple[str, str], tuple[str, dict[str, Any], dict[str, Any]]] = {
    ("uav-mini", "hierlight-yolo-n"): ("hierlight-yolo-n", {}, {}),
    ("uav-mini", "yolov8n"): ("yolov8n", {}, {}),
    ("thermal-mini", "ms-yolo"): ("ms-yolo", {}, SLIDE),
    ("thermal-mini", "yolov8n-light"): ("yolov8n", LIGHT, {}),
    ("uav-mini", "yolov8n-p2"): ("yolov8n-p2", {}, {}),
    ("thermal-mini", "mobilenetv4"): ("ms-yolo", {}, {}),
    ("thermal-mini", "yolov8n-light-slide"): ("yolov8n", LIGHT, SLIDE),
}


class Lines:
    """Prints notes, and a line now and then."""

    def __init__(self) -> None:
        self.said = 0.0

    def phase(self, name: str) -> None:
        """Say it."""
        print(name, flush=True)

    def step(self, name: str, done: int, total: int) -> None:
        """Say it once a minute."""
        if time.perf_counter() - self.said > 60 or done == total:
            self.said = time.perf_counter()
            print(f"{name} {done}/{total}", flush=True)

    def note(self, text: str) -> None:
        """Say it."""
        print(text, flush=True)


def data_of(name: str, work: Path, *, train: int = 5000, val: int = 500) -> Path:
    """Return the data.yaml of a generated set, drawn where it is missing."""
    path = work / "data" / name / "data.yaml"
    return path if path.exists() else make_set(name, path.parent, train=train, val=val, seed=0)


def train_one(key: tuple[str, str], seed: int, work: Path, *, short: bool = False) -> dict[str, Any]:
    """Train one run to its end and return what it was."""
    import torch

    from edgekit.models.architectures import architecture
    from edgekit.models.torch_models import fresh
    from edgekit.training.batches import Batches
    from edgekit.training.loop import BEST, Run

    name, options, differs = RUNS[key]
    settings = replace(SETTINGS[key[0]], seed=seed, **differs)
    if short:
        settings = replace(settings, limit=64, epochs=2)
    split = read_split(data_of(key[0], work, **({"train": 16, "val": 8} if short else {})), "train")
    # Other settings are another run: checkpoints of the one must not end the other.
    folder = work / f"{key[0]}-{key[1]}-s{seed}-{digest_value(asdict(settings))[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = fresh(architecture(name, nc=len(split.names), options=options))
    batches = Batches(split.samples, settings)
    run = Run(model=model, batches=batches, settings=settings, work=folder, bf16=True)
    run.train()
    facts = passport()
    return {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d"), "commit": commit(),
        "machine": {k: facts[k] for k in ("cpu", "isa", "cores_physical", "memory_mb")},
        "set": key[0], "row": key[1], "seed": seed, "model": name, "options": options,
        "classes": list(split.names), "settings": asdict(settings), "images": len(batches.places),
        "history": run.state.history, "torch": torch.__version__, "weights": str(folder / BEST),
    }  # fmt: skip


def commit() -> str:
    """Return the commit this tree stands at."""
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip()


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="data, checkpoints and weights")
    parser.add_argument("--out", type=Path, default=KEPT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", help="one run, SET:ROW")
    parser.add_argument("--slice", action="store_true")
    args = parser.parse_args()
    if not args.slice and args.work is None:
        parser.error("--work is needed")
    with watched_by(Lines()):
        if args.slice:
            with tempfile.TemporaryDirectory() as folder:
                for key in [("uav-mini", "hierlight-yolo-n"), ("thermal-mini", "ms-yolo")]:
                    made = train_one(key, 0, Path(folder), short=True)
                    print(key, made["history"][-1])
            return
        for seed in args.seeds:
            for key in RUNS:
                path = args.out / f"{key[0]}-{key[1]}-s{seed}.json"
                if path.exists() or args.only not in {None, ":".join(key)}:
                    continue
                print(f"{path.stem}", flush=True)
                made = train_one(key, seed, args.work)
                made["weights"] = Path(made["weights"]).parent.name
                write_json(path, made)


if __name__ == "__main__":
    main()
