"""Time what packed codes cost a detector: the same network with its values as floats, and behind codes of few bits.

    python scripts/bench/sensor_front.py             # about five minutes on two cores
    python scripts/bench/sensor_front.py --runs 16   # a first look; nothing is kept
    python scripts/bench/sensor_front.py --slice     # one engine, 4 bits, some runs; nothing is kept

The contenders of one engine run in processes of their own, alternating in one contest. Beside it the encoder: the C
header by its table and by its thresholds, and numpy, on a frame of 640 x 640 values, one core.
"""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.codecs.curves import thresholds_of, value_scale
from edgekit.codecs.sensor import Sensor
from edgekit.codecs.sensor_table import PLUGIN, Table
from edgekit.core.digest import digest_file
from edgekit.core.files import write_json
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Coding, Contract, Frames, Graph, Network
from edgekit.frames.raw import planes_of
from edgekit.graph.half import restore_half
from edgekit.graph.onnx_file import inputs_of, outputs_of, read_onnx, save_onnx
from edgekit.graph.sensor_front import FRONT, with_front
from edgekit.graph.static import fix_shapes, slim
from edgekit.graph.walk import name_nodes
from edgekit.lowering.protocol import Options
from edgekit.machine.probe import passport
from edgekit.measure.contest import contest
from edgekit.measure.encoder import c_type, compiled, encoder_times
from edgekit.measure.percentiles import median
from edgekit.passes.gamma_quant import Settings, fixed_table

ROOT = Path(__file__).resolve().parent.parent.parent
SIDE = 320
SENSOR = Sensor(bits=12, black=64, mosaic="RGGB")
_KEPT_FROM = 64


def table_of_bits(bits: int) -> Table:
    """Return a table of a bent curve; 12 bits keep the sensor's own."""
    if bits == 12:
        return fixed_table(Settings(curve="none"), SENSOR, height=SIDE, width=SIDE)
    light = np.clip(np.arange(4096) - 64, 0, None) / 4031
    codes = np.floor(np.minimum(light * 18, 1) ** 0.47 * ((1 << bits) - 1) + 1e-6).astype(int)
    scale, offset = value_scale(SENSOR, bits, "gamma")
    rows = (thresholds_of(codes, SENSOR, bits),) * 4
    return Table(
        sensor=SENSOR,
        bits=bits,
        height=SIDE,
        width=SIDE,
        thresholds=rows,
        scale=scale,
        offset=offset,
        curve="gamma",
    )


def artifact_of(backend: str, bits: int, folder: Path, threads: int) -> Artifact:
    """Return the shipped detector for an engine, behind codes of `bits`; 0 leaves its values floats."""
    model = fix_shapes(
        restore_half(read_onnx(ROOT / "models" / "uav-yolov8n.onnx")), imgsz=SIDE, where="detector"
    )
    model = slim(model, where="detector")
    frames = None
    if bits:
        table = table_of_bits(bits)
        model = with_front(model, table)
        frames = Frames(coding=Coding(codec="sensor-table", settings=table.settings()))
    name_nodes(model.graph)
    place = folder / f"{backend}-{bits}"
    (place / "out").mkdir(parents=True)
    save_onnx(model, place / "main.onnx")
    contract = Contract(inputs=inputs_of(model), outputs=outputs_of(model), frames=frames)
    network = Network(
        graphs={"main": Graph(path=place / "main.onnx", sha256=digest_file(place / "main.onnx"))},
        contract=contract,
    )
    made: Artifact = pick("lowering", backend, what="backend").lower(
        network, None, Options(precision="fp32", threads=threads), place / "out"
    )
    return made


def fronts(
    folder: Path, runs: int, threads: int, backends: tuple[str, ...], widths: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Return a row for each engine and number of bits."""
    rows = []
    for backend in backends:
        entrants = {str(b): artifact_of(backend, b, folder, threads) for b in widths}
        for bits, entrant in entrants.items():
            floats = artifact_of(backend, 0, folder / f"pair{bits}", threads)
            made = contest(
                {"floats": floats, "codes": entrant}, [], runs=runs,
                seconds=0.0, limit_s=300.0, spans=("model",), receipts=True,
            )  # fmt: skip
            one, other = (median(made[k].spans["model"]) for k in ("floats", "codes"))
            receipt = made["codes"].receipt
            share = sum(
                r["share"]
                for r in receipt
                if r["name"].startswith(FRONT) or any(c.startswith(FRONT) for c in r.get("covers", ()))
            )
            rows.append(
                {
                    "backend": backend, "bits": int(bits), "floats_ms": one, "codes_ms": other, "times_as_long": other / one,
                    "front_share": share,
                }
            )  # fmt: skip
            print(
                f"{backend:<12} {bits:>2} bits  {one:6.2f} -> {other:6.2f} ms  front {share:.1%}", flush=True
            )
    return rows


def encoders(folder: Path, widths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return how fast a frame is encoded, by way and bits."""
    from edgekit.data.uav_dark import draw_scene

    raws = [draw_scene(seed=9, split="val", index=k, size=2 * SIDE).image for k in range(4)]
    rows = []
    for bits in widths:
        table = table_of_bits(bits)
        coding = Coding(codec="sensor-table", settings=table.settings())
        found = encoder_times(coding, raws)
        found["thresholds_ms"] = _by_thresholds(table, raws, folder / f"c{bits}")
        megabytes = 2 * (2 * SIDE) ** 2 / 1e6
        rows.append({"bits": bits, "megabytes": megabytes, **found})
        print(f"encoder {bits} bits: {found}", flush=True)
    return rows


def _by_thresholds(table: Table, raws: list[np.ndarray], folder: Path) -> float:
    import time

    folder.mkdir()
    header = PLUGIN.files(table.settings())["device/encoder.h"]
    encode = compiled(header, folder, "cc", "-DEDGEKIT_THRESHOLDS")
    planes = [np.ascontiguousarray(planes_of(r, SENSOR), c_type(signed=False, bits=12)) for r in raws]
    out, spent = np.zeros(PLUGIN.shape(table.settings()), np.uint8), []
    for k in range(100):
        begun = time.perf_counter_ns()
        encode(planes[k % len(planes)], out)
        spent.append((time.perf_counter_ns() - begun) / 1e6)
    return float(np.median(spent))


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=192)
    parser.add_argument("--slice", action="store_true")
    args = parser.parse_args()
    facts = passport()
    with tempfile.TemporaryDirectory() as folder:
        place, threads = Path(folder), int(facts["cores_physical"])
        if args.slice:
            fronts(place, 8, threads, ("onnxruntime",), (4,))
            encoders(place, (4,))
            return
        rows = fronts(place, args.runs, threads, ("onnxruntime", "openvino"), (4, 2, 8, 3, 12))
        coded = encoders(place, (4, 2, 8, 3))
    if args.runs < _KEPT_FROM:
        return
    date = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d")
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    write_json(
        ROOT / "docs" / "evidence" / f"sensor_front-{date}.json",
        {
            "date": date, "commit": said.stdout.strip(), "runs": args.runs, "rows": rows, "encoders": coded,
            "machine": {k: facts[k] for k in ("cpu", "isa", "cores_physical", "memory_mb", "engines")},
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
