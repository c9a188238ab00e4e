"""Train the pairs of progressive loading, and time a growing ResNet-50: accuracy of every step, first answer, stalls, memory.

    python scripts/evidence/growing.py accuracy --work /somewhere     # resnet, vgg, vit: three seeds, and the control
    python scripts/evidence/growing.py detector --work /somewhere     # HierLight-YOLO-N behind a student of half its width
    python scripts/evidence/growing.py int8 --work /somewhere         # the demo, its segments in int8
    python scripts/evidence/growing.py serve --work /somewhere        # cold disk, a slow link, a steady rate of requests
    python scripts/evidence/growing.py accuracy --slice               # a minute: nothing is kept

Each run leaves one JSON file in docs/evidence/growing; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectors import SETTINGS as UAV
from detectors import Lines, commit, data_of
from growing_bundle import serve_bundle, slow_server

from edgekit.core import versions
from edgekit.core.files import write_json
from edgekit.core.watch import watched_by
from edgekit.data.dataset import read_split
from edgekit.data.make import make_set
from edgekit.machine.probe import passport
from edgekit.training.settings import TrainPart

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "growing"
SIDE = 32


@dataclass(frozen=True)
class Family:
    """One pair: what the teacher is, and what the student has otherwise."""

    name: str
    teacher: Mapping[str, Any]
    student: Mapping[str, Any]
    lr: float
    optimizer: str = "sgd"
    batch: int = 64
    teacher_epochs: int = 20
    weight_decay: float = 5e-4
    count: int = 0


FAMILIES = {
    "resnet": Family(
        "resnet",
        {"widths": [16, 24, 32, 48], "depths": [2, 2, 2, 2], "stem": "imagenet"},
        {"widths": [8, 12, 16, 24], "depths": [1, 1, 1, 1], "stem": "imagenet"},
        0.05,
    ),
    "vgg": Family(
        "vgg",
        {"widths": [12, 16, 24, 32, 48], "depths": [1, 2, 2, 2, 2]},
        {"widths": [6, 8, 12, 16, 24], "depths": [1, 1, 1, 1, 1]},
        0.05,
    ),
    "vit": Family(
        "vit",
        {"width": 48, "depth": 6, "heads": 3, "patch": 8, "side": 32},
        {"width": 48, "depth": 3, "heads": 3, "patch": 8, "side": 32},
        1e-3,
        "adamw",
        # Without weights to start from, transformers take more steps.
        batch=32,
        teacher_epochs=60,
        weight_decay=0.0,
        count=3,
    ),
}
# The control learns from labels and teacher alone; its converters stay as they were made.
ARMS = {"prefix": {}, "control": {"sync": 0.0, "recon": 0.0, "cross": 0.0}}


def settings_of(family: Family, *, seed: int, epochs: int) -> TrainPart:
    """Return the schedule of teacher and student."""
    return TrainPart(
        epochs=epochs, imgsz=SIDE, batch=family.batch, lr=family.lr, weight_decay=family.weight_decay, final_lr=0.02, schedule="cosine", warmup_epochs=1,
        momentum=0.9, average=0.0, shift=0.1, fliplr=0.0, optimizer=family.optimizer, val_images=0, seed=seed, threads=1,
    )  # fmt: skip


def pictures(work: Path) -> tuple[Any, Any]:
    """Return the training and validation pictures of digits-mini, drawn once."""
    from edgekit.core.records import Frames
    from edgekit.training.pictures import pictures_of

    place = work / "digits-mini"
    path = place / "data.yaml" if place.exists() else make_set("digits-mini", place, train=3891, val=1000)
    frames = Frames(resize="crop")
    return tuple(pictures_of(read_split(path, s).samples, frames, (SIDE, SIDE)) for s in ("train", "val"))  # type: ignore[return-value]


def accuracy_run(family: Family, arm: str, seed: int, work: Path, *, short: bool) -> dict[str, Any]:
    """Train one teacher and one student, and return the accuracy of every step."""
    import torch

    from edgekit.models.classifiers import build_classifier
    from edgekit.models.staged import staged
    from edgekit.training.distillation.criterion import Distilled
    from edgekit.training.distillation.masks import prefix_masks
    from edgekit.training.distillation.pair import Mixed, Pair
    from edgekit.training.distillation.tasks import Classes
    from edgekit.training.evaluate import classes_of_pictures
    from edgekit.training.loop import Run
    from edgekit.training.pictures import Pictures
    from edgekit.training.terms.protocol import Weights

    torch.set_num_threads(1)
    (images, labels), (seen, truth) = pictures(work)
    teacher = _teacher(family, seed, work, (images, labels), short=short)
    settings = settings_of(family, seed=seed, epochs=1 if short else 40)
    torch.manual_seed(seed + 1000)
    student = build_classifier(family.name, nc=10, options=family.student)
    shape = (3, SIDE, SIDE)
    pair = Pair(*(staged(n, shape=shape, stages=family.count) for n in (teacher, student)), shape=shape)
    criterion = Distilled(pair, Classes(), Weights(**ARMS[arm]), masks="prefix", seed=seed)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        run = Run(
            model=pair, batches=Pictures(images, labels, settings), settings=settings, work=Path(folder),
            criterion=criterion, clip=5.0,
        )  # fmt: skip
        pair.load_state_dict(run.train())
    pair.eval()
    masks = prefix_masks(pair.stages)
    rows = [_share(classes_of_pictures(Mixed(pair, m), seen), truth) for m in masks]
    others = ["S" * (pair.stages - 1) + "T", "S" + "T" * (pair.stages - 1)]
    return {
        "task": "accuracy", "family": family.name, "arm": arm, "seed": seed, "masks": list(masks), "accuracy": rows,
        "teacher": _share(classes_of_pictures(teacher, seen), truth),
        "other": {m: _share(classes_of_pictures(Mixed(pair, m), seen), truth) for m in others},
        "params": [sum(p.numel() for p in n.parameters()) for n in (teacher, student)],
        "epochs": settings.epochs, "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def _teacher(family: Family, seed: int, work: Path, given: Any, *, short: bool) -> Any:
    """Return the trained teacher of a family and seed; both arms lead to the same one."""
    import torch
    from safetensors.torch import load_file, save_file

    from edgekit.models.classifiers import build_classifier
    from edgekit.training.loop import Run
    from edgekit.training.pictures import Pictures

    torch.manual_seed(seed)
    net = build_classifier(family.name, nc=10, options=family.teacher)
    kept = work / f"teacher-{family.name}-{seed}{'-short' if short else ''}.safetensors"
    if not kept.exists():
        settings = settings_of(family, seed=seed, epochs=1 if short else family.teacher_epochs)
        with tempfile.TemporaryDirectory(dir=work) as folder:
            run = Run(model=net, batches=Pictures(*given, settings), settings=settings, work=Path(folder))
            save_file({k: v.contiguous() for k, v in run.train().items()}, kept)
    net.load_state_dict(load_file(kept))
    return net.eval()


def _share(logits: Any, truth: Any) -> float:
    return float((logits.argmax(1) == truth).mean())


def detector_run(arm: str, work: Path, *, short: bool) -> dict[str, Any]:
    """Train HierLight-YOLO-T behind the shipped N on generated scenes, and return AP50 of every step."""
    import torch

    from edgekit.jobs.grow import RECORD, train_pair
    from edgekit.models.find import find_by_name
    from edgekit.passes.progressive_load import Settings

    torch.set_num_threads(1)
    path = data_of("uav-mini", work, **({"train": 4, "val": 2} if short else {"train": 1000, "val": 200}))
    train, val = read_split(path, "train"), read_split(path, "val")
    # The schedule of the teacher's own run (scripts/evidence/detectors.py), on a tenth of its pixels.
    part = replace(
        UAV["uav-mini"], seed=0, threads=1, imgsz=160, epochs=1, limit=32 if short else 16000, average=0.0
    )
    side = 128 if short else 640
    val = replace(val, samples=val.samples[: 2 if short else 100])
    name = "hierlight-yolo-n-uav"
    teacher = find_by_name(name, weights=ROOT / "models" / f"{name}.safetensors")
    student = find_by_name("hierlight-yolo-t", nc=len(train.names))
    began = time.perf_counter()
    place = work / f"detector-{arm}{'-short' if short else ''}"
    place.mkdir(exist_ok=True)
    settings = Settings(**ARMS[arm])  # type: ignore[arg-type]
    isa = passport()["isa"]
    train_pair(part, settings, (teacher, student), (train, val), (side, "map50"), place, place, isa=isa)
    record = json.loads((place / RECORD).read_text())
    return {
        "task": "detector", "arm": arm, "seed": 0, "masks": record["masks"], "accuracy": record["accuracy_by_k"],
        "tiles": part.limit, "epochs": part.epochs, "judged_on": len(val.samples), "history": record["history"],
        "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def int8_run(work: Path) -> dict[str, Any]:
    """Compile the demo with quantize-int8 behind it, and return the accuracy of every step of every variant."""
    text = (ROOT / "recipes" / "progressive-digits.yaml").read_text()
    path = work / "digits-int8.yaml"
    path.write_text(text.replace("\nexport:", "  - quantize-int8\n\nexport:", 1))
    words = ["compile", str(path), "--device", "local", "--precision", "int8", "-o", str(work), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from edgekit.cli import main; main()", *words],
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(done.stdout)
    manifest = json.loads((Path(report["bundle"]) / "manifest.json").read_text())
    steps = {
        v["name"]: json.loads((Path(report["bundle"]) / v["main"]).read_text())["steps"]
        for v in manifest["variants"]
    }
    return {
        "task": "int8", "chosen": report["chosen"], "in_torch": report["grows"]["in_torch"],
        "masks": report["grows"]["masks"], "accuracy": {n: [s["accuracy"] for s in rows] for n, rows in steps.items()},
    }  # fmt: skip


def serve_run(work: Path, backend: str, *, short: bool) -> dict[str, Any]:
    """Time first answers from a cold disk and over a slow link, and a steady rate of requests."""
    from edgekit.jobs.growth import requests_of, trial

    order = serve_bundle(work, backend, side=64, short=short)
    first, whole = [], []
    for _ in range(1 if short else 9):
        first.append(trial({**order, "do": "first"}))
        whole.append(trial({**order, "do": "whole"}))
    span_s = 4.0 if short else 60.0
    grown = trial(
        {
            **order,
            "do": "grow",
            "hz": 30.0,
            "mb_s": order["all_bytes"] / 1e6 / span_s,
            "most_s": 6 * span_s,
            "least_s": span_s,
        }
    )
    freely = trial(
        {**order, "do": "grow", "hz": 30.0, "mb_s": 0.0, "most_s": 6 * span_s, "least_s": span_s / 4}
    )
    link = _over_link(order, mbit_s=10.0 if not short else 80.0)
    return {
        "task": "serve", "backend": backend, "bytes": {k: order[k] for k in ("first_bytes", "all_bytes", "whole_bytes", "largest_bytes")},
        "first_ms": [t["ms"] for t in first], "whole_ms": [t["ms"] for t in whole],
        "cold": all(t["cold"] for t in (*first, *whole)),
        "peak_mb": {"first": [t["peak_mb"] for t in first], "whole": [t["peak_mb"] for t in whole], "grow": grown["peak_mb"], "grow_freely": freely["peak_mb"]},
        "steady": _said(grown, requests_of(grown)), "freely": _said(freely, requests_of(freely)), "link": link,
    }  # fmt: skip


def _said(trial: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return what a trial says, with the requests above twice the p99 of their step where nothing is loaded."""
    rows, control = trial["rows"], trial["control"]
    p99 = {k: float(np.percentile([r[1] for r in control if r[2] == k], 99)) for k in {r[2] for r in control}}
    return {
        **{k: found[k] for k in ("requests", "stall_ms", "control_ms", "changes")},
        "settled_at_s": trial["settled_at_s"], "control_p99_ms": p99,
        "above_twice": sum(r[1] > 2 * p99[r[2]] for r in rows),
        "control_above_twice": sum(r[1] > 2 * p99[r[2]] for r in control),
        "worst_ms": max(r[1] for r in rows),
    }  # fmt: skip


def _over_link(order: dict[str, Any], *, mbit_s: float) -> dict[str, Any]:
    """Time the first answer over a link, and how long the whole model takes to come over it."""
    from edgekit.jobs.growth import trial

    packed = Path(order["packed"])
    with slow_server(packed.parent, mbit_s * 1e6 / 8) as base:
        first = trial({**order, "do": "first", "bundle": f"{base}/{packed.name}"})
        began = time.perf_counter()
        for file in sorted(Path(order["main"]).parent.iterdir()):
            with urllib.request.urlopen(f"{base}/whole/{file.name}") as answer:
                while answer.read(1 << 20):
                    pass
        fetched_ms = (time.perf_counter() - began) * 1e3
    whole = trial({**order, "do": "whole"})
    return {"mbit_s": mbit_s, "first_ms": first["ms"], "whole_ms": fetched_ms + whole["ms"]}


def kept(name: str, found: dict[str, Any]) -> None:
    """Write one run with machine, date and commit."""
    KEPT.mkdir(parents=True, exist_ok=True)
    host = passport()
    machine = {k: host[k] for k in ("cpu", "isa", "cores_physical", "memory_mb")}
    tools = versions.versions("torch", "timm", "onnxruntime", "openvino", "numpy")
    write_json(
        KEPT / f"{name}.json",
        {
            **found,
            "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
            "commit": commit(),
            "machine": machine,
            "tools": tools,
        },
    )


def main() -> None:
    """Run what is asked for and missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("accuracy", "detector", "int8", "serve"))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--family", action="append")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--slice", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, watched_by(Lines()):
        work = given.work or Path(place)
        work.mkdir(parents=True, exist_ok=True)
        for name, run in wanted(given, work):
            if given.slice:
                print(name, json.dumps(run())[:1500])
            elif not (KEPT / f"{name}.json").exists():
                found = run()
                kept(name, found)
                print(name, json.dumps(found.get("accuracy") or found)[:1500], flush=True)


def wanted(given: argparse.Namespace, work: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Give the runs that were asked for, each by its name."""
    short = given.slice
    if given.what == "serve":
        for backend in ("onnxruntime",) if short else ("onnxruntime", "openvino"):
            yield f"serve-{backend}", partial(serve_run, work, backend, short=short)
    elif given.what == "detector":
        for arm in ARMS:
            yield f"detector-{arm}", partial(detector_run, arm, work, short=short)
    elif given.what == "int8":
        yield "int8", partial(int8_run, work)
    else:
        for seed in given.seeds[:1] if short else given.seeds:
            for name in given.family or (["resnet"] if short else FAMILIES):
                for arm in ARMS:
                    label = f"accuracy-{name}-{arm}-s{seed}"
                    yield label, partial(accuracy_run, FAMILIES[name], arm, seed, work, short=short)


if __name__ == "__main__":
    main()
