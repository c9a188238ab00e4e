"""Time edgekit's bundle against what `yolo export` gives, on the same weights, images and machine.

    python scripts/bench/vs_ultralytics.py out/uav-yolov8n-x86-cpu/bundle --work work/bench

Each contender runs in a process of its own; the processes alternate in shuffled order, at least five
rounds; ratios of medians are printed with their spread over rounds. Needs edgekit[host,train,nncf].
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
WARM, RUNS = 25, 60
# Where `prepare_float` puts its bundle below the work folder; compiled anew each time, finished steps are kept.
FLOAT = "float-local/bundle"
MODEL, FRAME, START = "model", "frame to result", "start to first result"
CONTENDERS = {
    "edgekit model": (MODEL, "edgekit"),
    "yolo export onnx, onnxruntime defaults": (MODEL, "peer"),
    "yolo export openvino int8": (MODEL, "peer"),
    "edgekit model(frame)": (FRAME, "edgekit"),
    "ultralytics model(frame), onnx": (FRAME, "peer"),
    "ultralytics model(frame), openvino int8": (FRAME, "peer"),
    "edgekit load, onnxruntime-fp32": (START, "edgekit"),
    "ultralytics load, onnx": (START, "peer"),
}


def frames(data: Path) -> list[np.ndarray]:
    """Return sixteen validation frames."""
    import cv2

    return [cv2.imread(str(p)) for p in sorted((data.parent / "images" / "val").glob("*.jpg"))[:16]]


def timed(once: Any) -> list[float]:
    """Return single-run milliseconds after a warm-up."""
    for k in range(WARM):
        once(k)
    found = []
    for k in range(RUNS):
        began = time.perf_counter_ns()
        once(k)
        found.append((time.perf_counter_ns() - began) / 1e6)
    return found


def run_edgekit_model(args: argparse.Namespace) -> list[float]:
    """Time the bundle's network alone, inputs in place."""
    import edgekit
    from edgekit.frames.prepare import prepare

    model = edgekit.load(args.bundle)
    name = model.contract.inputs[0].name
    given = [prepare(f, model.contract.frames, (640, 640))[0] for f in frames(args.data)]
    session = model._session

    def once(k: int) -> None:
        session.run_staged()

    session.stage({name: given[0]})
    return timed(once)


def run_onnx_model(args: argparse.Namespace) -> list[float]:
    """Time ultralytics' ONNX in onnxruntime at its defaults."""
    from edgekit.core.lazy import need

    ort = need("onnxruntime")
    session = ort.InferenceSession(str(args.work / "peer.onnx"), providers=["CPUExecutionProvider"])
    given = tensors(args)
    name = session.get_inputs()[0].name
    return timed(lambda k: session.run(None, {name: given[k % len(given)]}))


def run_openvino_model(args: argparse.Namespace) -> list[float]:
    """Time ultralytics' int8 IR with the hint ultralytics compiles with."""
    from edgekit.core.lazy import need

    ov = need("openvino")
    core = ov.Core()
    path = next((args.work / "peer_int8_openvino_model").glob("*.xml"))
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    given = tensors(args)[0]
    request.set_input_tensor(ov.Tensor(given, shared_memory=True))

    def once(k: int) -> None:
        request.start_async()
        request.wait()

    return timed(once)


def tensors(args: argparse.Namespace) -> list[np.ndarray]:
    """Return frames as the networks take them."""
    from edgekit.core.records import Frames
    from edgekit.frames.prepare import prepare

    return [prepare(f, Frames(), (640, 640))[0] for f in frames(args.data)]


def run_edgekit_frame(args: argparse.Namespace) -> list[float]:
    """Time the bundle from frame to boxes."""
    import edgekit

    model, some = edgekit.load(args.bundle), frames(args.data)
    return timed(lambda k: model(some[k % len(some)]))


def ultralytics_model(args: argparse.Namespace, file: str) -> Any:
    """Return ultralytics' own model of an exported file."""
    from edgekit.core.lazy import need

    return need("ultralytics").YOLO(str(args.work / file), task="detect")


def run_ultralytics(args: argparse.Namespace, file: str) -> list[float]:
    """Time ultralytics' `model(frame)` on an exported file."""
    model, some = ultralytics_model(args, file), frames(args.data)
    return timed(lambda k: model(some[k % len(some)], verbose=False))


def run_edgekit_start(args: argparse.Namespace) -> list[float]:
    """Load the same float32 ONNX and answer once; the parent times the process."""
    import edgekit

    edgekit.load(args.work / FLOAT, variant="onnxruntime-fp32")(frames(args.data)[0])
    return []


def run_ultralytics_start(args: argparse.Namespace) -> list[float]:
    """Load ultralytics' ONNX and answer once; the parent times the process."""
    ultralytics_model(args, "peer.onnx")(frames(args.data)[0], verbose=False)
    return []


WORKERS = {
    "edgekit model": run_edgekit_model,
    "yolo export onnx, onnxruntime defaults": run_onnx_model,
    "yolo export openvino int8": run_openvino_model,
    "edgekit model(frame)": run_edgekit_frame,
    "ultralytics model(frame), onnx": lambda a: run_ultralytics(a, "peer.onnx"),
    "ultralytics model(frame), openvino int8": lambda a: run_ultralytics(a, "peer_int8_openvino_model"),
    "edgekit load, onnxruntime-fp32": run_edgekit_start,
    "ultralytics load, onnx": run_ultralytics_start,
}


def prepare_peers(work: Path, data: Path) -> None:
    """Export the shipped weights with ultralytics: ONNX at its defaults, and OpenVINO int8."""
    from edgekit.core.lazy import need
    from edgekit.core.places import shipped
    from edgekit.data.uav_mini import CLASSES
    from edgekit.models.find import find_by_name
    from edgekit.models.torch_models import build

    if (work / "peer.onnx").exists() and (work / "peer_int8_openvino_model").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    source = find_by_name("yolov8n", weights=shipped("models") / "uav-yolov8n.safetensors", nc=len(CLASSES))
    ultralytics = need("ultralytics")
    need("nncf")
    model = ultralytics.YOLO("yolov8n.yaml", task="detect")
    model.model = build(source).module
    model.model.names = dict(enumerate(CLASSES))
    model.model.yaml["nc"] = len(CLASSES)
    model.ckpt = {"model": model.model}
    model.save(str(work / "peer.pt"))
    made = ultralytics.YOLO(str(work / "peer.pt"))
    made.export(format="onnx")
    ultralytics.YOLO(str(work / "peer.pt")).export(format="openvino", int8=True, data=str(data.resolve()))


def prepare_float(work: Path) -> None:
    """Compile the shipped weights in float32 for onnxruntime: a measured bundle holds what was fastest."""
    from edgekit.jobs.api import compile_recipe

    recipe = work / "float.yaml"
    recipe.write_text(
        "schema: edgekit/recipe/v1\nmodel: {name: uav-yolov8n}\npasses: [simplify]\nexport: {imgsz: 640}\n"
        "devices: {local: {backend: onnxruntime, precision: fp32}}\n"
    )
    compile_recipe(recipe, output=work, quick=True)


def accuracy(args: argparse.Namespace) -> dict[str, float]:
    """Score every network on the validation images by one code: the peers' raw outputs, our decoding."""
    import edgekit
    from edgekit.core.lazy import need
    from edgekit.core.records import Artifact
    from edgekit.data.dataset import read_split
    from edgekit.jobs.accuracy import detections_of, truths_of
    from edgekit.metrics.coco_map import score

    split = read_split(args.data, "val")
    samples = split.samples[: args.images]
    with edgekit.load(args.bundle) as model:
        contract, variant, folder = model.contract, model.variant, args.bundle
    xml = next((args.work / "peer_int8_openvino_model").glob("*.xml"))
    given = need("openvino").Core().read_model(str(xml)).inputs[0].get_any_name()
    # A peer's file holds its decoder.
    whole = dataclasses.replace(
        contract, answers=dataclasses.replace(contract.answers, layout="yolov8", levels=())
    )
    theirs = dataclasses.replace(whole, inputs=(dataclasses.replace(contract.inputs[0], name=given),))
    entries = {
        "edgekit": variant.artifact(folder, contract),
        "yolo export onnx": Artifact(backend="onnxruntime", precision="fp32", main=args.work / "peer.onnx", contract=whole),
        "yolo export openvino int8": Artifact(backend="openvino", precision="int8", main=xml, contract=theirs),
    }  # fmt: skip
    truths = truths_of(samples)
    return {
        n: score(truths, detections_of(a, samples, what=n), split.names).map50 for n, a in entries.items()
    }


def one(name: str, args: argparse.Namespace) -> float:
    """Run a contender in a process of its own; return its median, or the process's whole time."""
    words = [sys.executable, __file__, str(args.bundle), "--work", str(args.work), "--data", str(args.data)]
    began = time.perf_counter()
    done = subprocess.run([*words, "--contender", name], capture_output=True, text=True, check=False)
    spent = (time.perf_counter() - began) * 1000
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    samples = json.loads(done.stdout.strip().splitlines()[-1])
    return float(np.median(samples)) if samples else spent


def contest(args: argparse.Namespace) -> dict[str, list[float]]:
    """Run all contenders in shuffled rounds; return each one's medians."""
    rng = random.Random(0)
    found: dict[str, list[float]] = {n: [] for n in CONTENDERS}
    for number in range(args.rounds):
        order = list(CONTENDERS)
        rng.shuffle(order)
        for name in order:
            found[name].append(one(name, args))
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
    return found


def ratios(found: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return how many times as fast edgekit is as each peer of its span: median, least and most over rounds."""
    rows = []
    for name, (span, side) in CONTENDERS.items():
        if side == "edgekit":
            continue
        own = next(n for n, (s, e) in CONTENDERS.items() if s == span and e == "edgekit")
        pairs = [p / o for p, o in zip(found[name], found[own], strict=True)]
        rows.append(
            {
                "span": span, "edgekit": own, "peer": name, "edgekit_ms": float(np.median(found[own])),
                "peer_ms": float(np.median(found[name])),
                "times_as_fast": float(np.median(found[name]) / np.median(found[own])),
                "least": min(pairs), "most": max(pairs),
            }
        )  # fmt: skip
    return rows


def main() -> None:
    """Prepare, contest, score, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, default=Path("work/bench"))
    parser.add_argument("--data", type=Path, help="uav-mini's data.yaml; drawn where it is left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=500, help="validation images that are scored")
    parser.add_argument(
        "--out", type=Path, help="JSON file; docs/evidence/vs_ultralytics-<date>.json where left out"
    )
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work, args.bundle = args.work.resolve(), args.bundle.resolve()
    if args.contender:
        quiet = os.dup(1)
        os.dup2(2, 1)
        samples = WORKERS[args.contender](args)
        os.write(quiet, (json.dumps(samples) + "\n").encode())
        # Engines may crash while they are torn down; the result is out already.
        os._exit(0)
    if args.data is None:
        from edgekit.core.cache import StepCache
        from edgekit.core.places import cache_home
        from edgekit.jobs.data import drawn

        args.data = drawn(StepCache(root=cache_home()), "uav-mini", quick=False)
    args.data = args.data.resolve()
    prepare_peers(args.work, args.data)
    prepare_float(args.work)
    report(args, contest(args), accuracy(args))


def report(args: argparse.Namespace, found: dict[str, list[float]], scores: dict[str, float]) -> None:
    """Print the table and keep the JSON with machine and commit."""
    from edgekit.core.files import write_json
    from edgekit.core.versions import versions
    from edgekit.machine.probe import passport

    rows = ratios(found)
    for row in rows:
        print(
            f"{row['span']:<22} {row['edgekit_ms']:8.2f} ms  {row['peer_ms']:8.2f} ms  "
            f"{row['times_as_fast']:5.2f} x ({row['least']:.2f} to {row['most']:.2f})  {row['peer']}"
        )
    for name, value in scores.items():
        print(f"map50 {value:.4f}  {name}")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    today = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d")
    out = args.out or ROOT / "docs" / "evidence" / f"vs_ultralytics-{today}.json"
    kept = {
        "date": today, "commit": commit.stdout.strip(), "machine": passport(), "rounds": args.rounds,
        "images": args.images, "ratios": rows, "medians_ms": found, "map50": scores,
        "tools": versions("ultralytics", "openvino", "onnxruntime", "nncf", "torch"),
    }  # fmt: skip
    write_json(out, kept)
    print(f"kept in {out}")


if __name__ == "__main__":
    main()
