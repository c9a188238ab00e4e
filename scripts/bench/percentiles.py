"""p90 of `edgekit bench` against OpenVINO's benchmark_app and a plain loop in onnxruntime.

    python scripts/bench/percentiles.py [--rounds 15] [--slice]

The same model, threads and batch, one process a contender, all in turns in one run; the ratio of each round, and
the median over rounds with a 95 % interval. benchmark_app runs its synchronous API with one stream, which is what
edgekit's `model` span is.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "evidence"))
from detectors import commit  # noqa: E402 - of this checkout
from options import options_of  # noqa: E402

from edgekit.core.files import write_json  # noqa: E402
from edgekit.core.versions import versions  # noqa: E402
from edgekit.jobs.parcel import parcel_of  # noqa: E402
from edgekit.machine.probe import passport  # noqa: E402

OUT = ROOT / "docs" / "evidence" / "percentiles.json"
SIDE, THREADS = 256, 1

LOOP = """
import sys, time, numpy as np, onnxruntime as ort
path, seconds, threads = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
options = ort.SessionOptions(); options.intra_op_num_threads = threads; options.inter_op_num_threads = 1
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
spec = session.get_inputs()[0]; rng = np.random.default_rng(0)
pool = [rng.standard_normal(spec.shape).astype(np.float32) for _ in range(16)]
found = []; ends = time.monotonic() + 2
while time.monotonic() < ends: session.run(None, {spec.name: pool[0]})
ends = time.monotonic() + seconds; k = 0
while time.monotonic() < ends:
    began = time.perf_counter_ns(); session.run(None, {spec.name: pool[k % 16]})
    found.append((time.perf_counter_ns() - began) / 1e6); k += 1
print(sorted(found)[int(np.ceil(0.9 * len(found))) - 1])
"""


def ours(model: Path, backend: str, seconds: float) -> float:
    """Return edgekit's plain p90 in milliseconds."""
    words = [
        sys.executable, "-c", "from edgekit.cli import main; main()", "bench", str(model), "--backend", backend, "--mode", "smoke",
        "--seconds", str(seconds), "--span", "model", "--threads", str(THREADS), "--json",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "EDGEKIT_RESULTS": folder}
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
    tails = json.loads(done.stdout)["spans"][0]["tails"]
    return float(next(t["plain_ms"] for t in tails if t["share"] == 0.9))


def benchmark_app(model: Path, seconds: float) -> float:
    """Return benchmark_app's p90 in milliseconds."""
    words = [
        str(Path(sys.executable).with_name("benchmark_app")), "-m", str(model), "-api", "sync", "-hint", "none", "-nstreams", "1",
        "-nthreads", str(THREADS), "-t", str(round(seconds)), "-latency_percentile", "90", "-infer_precision", "f32",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = re.search(r"90(?:th)? percentile:\s+([\d.]+) ms", done.stdout, re.IGNORECASE)
    if not found:
        raise SystemExit(done.stdout[-1500:])
    return float(found[1])


def loop(model: Path, seconds: float) -> float:
    """Return a plain loop's p90 in milliseconds."""
    words = [sys.executable, "-c", LOOP, str(model), str(seconds), str(THREADS)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def measured(rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    """Return p90 of edgekit and of each peer, a pair a round, in milliseconds."""
    pairs: dict[str, list[list[float]]] = {"benchmark_app": [], "loop in onnxruntime": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        parcel_of(ROOT / "models/uav-yolov8n.onnx", imgsz=SIDE) as parcel,
    ):
        model = Path(folder) / "model.onnx"
        model.write_bytes(parcel.sources[parcel.artifact["main"]].read_bytes())
        for number in range(rounds):
            runs = {
                "benchmark_app": [
                    lambda: ours(model, "openvino", seconds),
                    lambda: benchmark_app(model, seconds),
                ],
                "loop in onnxruntime": [
                    lambda: ours(model, "onnxruntime", seconds),
                    lambda: loop(model, seconds),
                ],
            }
            for name, (own, peer) in runs.items():
                if number % 2:
                    second, first = peer(), own()
                else:
                    first, second = own(), peer()
                pairs[name].append([first, second])
                print(number + 1, name, f"{first:.3f} {second:.3f} {first / second:.3f}", flush=True)
    return pairs


def main() -> int:
    """Run the rounds; print and keep."""
    parser = options_of(__doc__, OUT)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    rounds, seconds = (1, 3.0) if args.slice else (args.rounds, args.seconds)
    pairs = measured(rounds, seconds)
    found = {name: summary(rows) for name, rows in pairs.items()}
    print(json.dumps(found, indent=2))
    if not args.slice:
        facts: dict[str, Any] = {
            "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d"), "commit": commit(), "machine": passport(),
            "tools": versions("openvino", "onnxruntime"), "rounds": rounds, "seconds": seconds, "side": SIDE, "threads": THREADS,
        }  # fmt: skip
        write_json(args.out, {**facts, "peers": found})
    return 0


def summary(rows: list[list[float]]) -> dict[str, Any]:
    """Return the median ratio with a 95 % interval over rounds."""
    ratios = np.array([a / b for a, b in rows])
    rng = np.random.default_rng(0)
    drawn = np.median(ratios[rng.integers(len(ratios), size=(2000, len(ratios)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    edgekit, peer = (float(np.median([r[k] for r in rows])) for k in (0, 1))
    return {
        "edgekit_p90_ms": edgekit,
        "peer_p90_ms": peer,
        "ratio": float(np.median(ratios)),
        "low": float(low),
        "high": float(high),
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
