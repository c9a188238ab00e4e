"""Train every arm of the γ-Quant comparison, one run at a time: the same images, the same schedule, another curve.

    python scripts/evidence/gamma.py detect --work /somewhere            # all runs that are missing
    python scripts/evidence/gamma.py digits wear --work /somewhere
    python scripts/evidence/gamma.py detect --only gamma-4 --seeds 0 --work /somewhere
    python scripts/evidence/gamma.py digits wear --slice                 # a minute: nothing is kept

Each finished run leaves one JSON file in docs/evidence/gamma; a run that was killed goes on after its last whole
epoch. Tables and plots are made from all of them by `gamma_tables.py`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from detectors import Lines, commit

from edgekit.core.digest import digest_value
from edgekit.core.files import write_json
from edgekit.core.watch import watched_by
from edgekit.data.dataset import read_split
from edgekit.data.make import make_set
from edgekit.data.sample import Split
from edgekit.machine.probe import passport
from edgekit.training.settings import TrainPart

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "gamma"


@dataclass(frozen=True)
class Arm:
    """One row of a table: a curve, its mode, and the bits it keeps (0: the sensor's own)."""

    curve: str
    bits: int
    mode: str = "gain"

    @property
    def name(self) -> str:
        """Its name in files and tables."""
        paper = "-paper" if self.mode == "paper" else ""
        return f"{self.curve}{paper}-{self.bits}" if self.bits else self.curve


@dataclass(frozen=True)
class Task:
    """One comparison."""

    data: str
    model: str
    settings: TrainPart
    arms: tuple[Arm, ...]
    sizes: tuple[int, int]
    metric: str
    seeds: tuple[int, ...]
    curve: float


def _grid(curves: tuple[tuple[str, str], ...]) -> tuple[Arm, ...]:
    return (Arm("none", 0), Arm("log", 12), *(Arm(c, b, m) for c, m in curves for b in (8, 6, 4, 3, 2)))


_SMALL = TrainPart(
    epochs=12, batch=32, optimizer="adamw", lr=3e-3, momentum=0.9, schedule="cosine", warmup_epochs=1, average=0,
    weight_decay=1e-4, val_images=0, precision="fp32",
)  # fmt: skip
_LEARNED = (("gamma", "gain"), ("gamma", "paper"))
TASKS = {
    "detect": Task(
        "uav-dark", "yolov8n",
        TrainPart(
            epochs=2, batch=16, imgsz=320, limit=1600, optimizer="adamw", lr=1e-3, momentum=0.9, schedule="cosine",
            warmup_epochs=0.2, average=0.995, mosaic=0, zoom=0, shift=0, hue=0, saturation=0, value=0.3,
            fliplr=0.5, flipud=0.5, turns=0.5, val_images=0, precision="bf16",
        ),
        (
            Arm("none", 0), Arm("log", 12), Arm("linear", 4), Arm("log", 4), Arm("log", 2),
            *(Arm("gamma", b) for b in (4, 8, 3, 2)),
        ),
        (2400, 400), "map50", (0, 1), 10.0,
    ),
    "digits": Task(
        "digits-dark", "digits-cnn", _SMALL,
        _grid((("linear", "gain"), ("log", "gain"), ("mu-law", "gain"), *_LEARNED)),
        (2594, 500), "top1", (0, 1, 2), 3.0,
    ),
    "wear": Task(
        "wear-mini", "tinyhar", replace(_SMALL, epochs=10),
        tuple(a for a in _grid((("linear", "gain"), ("mu-law", "gain"), *_LEARNED)) if a.curve != "log"),
        (2400, 1200), "macro_f1", (0, 1, 2), 3.0,
    ),
}  # fmt: skip


def split_of(task: Task, work: Path, split: str, *, short: bool) -> Split:
    """Return a split of the task's data, drawn where it is missing."""
    train, val = (64, 24) if short else task.sizes
    path = work / "data" / task.data / "data.yaml"
    if not path.exists():
        make_set(task.data, path.parent, train=train, val=val, seed=0)
    return read_split(path, split)


def net_of(task: Task, split: Split, seed: int) -> Any:
    """Return the network a run starts from: the shipped weights of uav-mini, or a fresh small one."""
    import torch

    from edgekit.models.find import find_by_name
    from edgekit.models.small import build_small
    from edgekit.training.start import begin
    from edgekit.training.windows import signals_of

    if task.metric == "map50":
        weights = ROOT / "models" / "uav-yolov8n.safetensors"
        return begin(find_by_name(task.model, weights=weights, nc=len(split.names)), seed=seed)[0]
    torch.manual_seed(seed)
    shape = signals_of([split.samples[0].path], split.sensor).shape[1:]  # type: ignore[arg-type]
    return build_small(task.model, shape=shape, nc=len(split.names))


def run_of(name: str, arm: Arm, seed: int, work: Path, *, short: bool) -> Any:
    """Return one run, ready to train, with what its folder is called."""
    from edgekit.training.batches import Batches
    from edgekit.training.behind import starts
    from edgekit.training.curve import Curve, Sensed
    from edgekit.training.loop import Run
    from edgekit.training.schedule import curve_group
    from edgekit.training.windows import Windows

    task = TASKS[name]
    settings = replace(task.settings, seed=seed, **({"epochs": 1} if short else {}))
    split = split_of(task, work, "train", short=short)
    assert split.sensor
    detect = task.metric == "map50"
    folder = work / f"{name}-{arm.name}-s{seed}-{digest_value(asdict(settings))[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    start = starts(split.samples, split.sensor)
    front = Curve(split.sensor, bits=arm.bits or 4, curve=arm.curve, mode=arm.mode, samples=start)
    batches = (Batches if detect else Windows)(split.samples, settings, sensor=split.sensor)
    model = Sensed(front, net_of(task, split, seed))
    return Run(
        model=model, batches=batches, settings=settings, work=folder, bf16=settings.precision == "bf16",
        apart=curve_group(model, task.curve),
    )  # fmt: skip


def train_one(name: str, arm: Arm, seed: int, work: Path, *, short: bool = False) -> dict[str, Any]:
    """Train one run to its end, judge it, and return what it was."""
    import torch

    from edgekit.training.loop import BEST

    torch.set_num_threads(1)
    task, run = TASKS[name], run_of(name, arm, seed, work, short=short)
    began, cpu = time.perf_counter(), time.process_time()
    run.model.load_state_dict(run.train())
    took = time.perf_counter() - began, time.process_time() - cpu
    facts, front = passport(), run.model.front
    table = front.coded(1, 1)
    return {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d"), "commit": commit(),
        "machine": {k: facts[k] for k in ("cpu", "isa", "cores_physical", "memory_mb")},
        "task": name, "arm": arm.name, "curve": arm.curve, "mode": arm.mode, "bits": table.bits, "seed": seed,
        "settings": asdict(run.settings), "curve_factor": task.curve, "images": len(run.batches.places),
        "seconds": round(took[0]), "cpu_seconds": round(took[1]), "history": run.state.history, "learned": front.learned(),
        "thresholds": table.thresholds if table.bits <= 4 else [], "metric": task.metric,
        **judged(task, run.model.eval(), split_of(task, work, "val", short=short)), "torch": torch.__version__,
        "weights": f"{run.work.name}/{BEST}",
    }  # fmt: skip


def judged(task: Task, model: Any, val: Split) -> dict[str, Any]:
    """Return the scores of a model on validation samples it has never seen."""
    from edgekit.jobs.accuracy import labels_of, truths_of
    from edgekit.metrics.classes import class_scores
    from edgekit.metrics.coco_map import score
    from edgekit.training.evaluate import classes_by, found_by

    assert val.sensor
    if task.metric == "map50":
        side = task.settings.imgsz
        found = found_by(model, val.samples, side=side, sensor=val.sensor)
        scores: Any = score(truths_of(val.samples, raw=True), found, val.names)
    else:
        truth = labels_of(val.samples)
        scores = class_scores(truth, classes_by(model, val.samples, sensor=val.sensor), val.names)
    return {"value": scores.value(task.metric), "scores": asdict(scores)}


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="+", choices=sorted(TASKS))
    parser.add_argument("--work", type=Path, help="data, checkpoints and weights")
    parser.add_argument("--out", type=Path, default=KEPT)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--only", nargs="+", help="arms, such as gamma-4")
    parser.add_argument("--slice", action="store_true")
    args = parser.parse_args()
    if not args.slice and args.work is None:
        parser.error("--work is needed")
    with watched_by(Lines()):
        if args.slice:
            with tempfile.TemporaryDirectory() as folder:
                for name in args.tasks:
                    for arm in (Arm("linear", 4), Arm("gamma", 4)):
                        made = train_one(name, arm, 0, Path(folder), short=True)
                        print(name, arm.name, made["history"][-1], made["value"], flush=True)
            return
        for name in args.tasks:
            for seed in args.seeds or TASKS[name].seeds:
                for arm in TASKS[name].arms:
                    path = args.out / f"{name}-{arm.name}-s{seed}.json"
                    if path.exists() or (args.only and arm.name not in args.only):
                        continue
                    print(path.stem, flush=True)
                    made = train_one(name, arm, seed, args.work)
                    write_json(path, made)
                    print(path.stem, f"{made['metric']} {made['value']:.4f}", flush=True)


if __name__ == "__main__":
    main()
