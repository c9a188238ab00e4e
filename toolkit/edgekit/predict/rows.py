"""Read the published latencies that predictions are made from."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_UNITS = ("cpu", "gpu", "npu", "dla")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published latency, as its source gives it.

    Attributes:
        model: Such as "yolo11n".
        device: With its unit in brackets where the source tells several apart.
        backend: The source's word for the engine, such as "openvino-cpu".
        precision: fp32, fp16, int8 or "not stated".
        imgsz: "640", or "1280x768".
        software: Edition of the benchmark, empty where the source does not say.
        latency_ms: Model inference alone.
        batch: Images a run.
    """

    model: str
    device: str
    power_mode: str
    backend: str
    precision: str
    imgsz: str
    batch: int
    latency_ms: float
    software: str
    source: str
    note: str

    def words(self) -> str:
        """Return the row as one line."""
        edition = f", {self.software}" if self.software else ""
        what = f"{self.model} {self.imgsz} {self.precision} with {self.backend} on {self.device}"
        return f"{what}: {self.latency_ms:g} ms{edition} ({self.source})"


@dataclass(frozen=True, kw_only=True)
class Size:
    """What one inference takes: GFLOPs (2 x MACs) and elements that convolutions write, in 1e6."""

    gflops: float
    activations_m: float

    def at(self, imgsz: float) -> Size:
        """Return the size of the same fully convolutional net, known at 640, at another image side."""
        ratio = (imgsz / 640) ** 2
        return Size(gflops=self.gflops * ratio, activations_m=self.activations_m * ratio)


@functools.cache
def rows() -> tuple[Row, ...]:
    """Return every published row."""
    with (_HERE / "published_latency.csv").open(newline="") as file:
        found = []
        for given in csv.DictReader(file):
            line = {k: v or "" for k, v in given.items() if k}
            numbers = {"latency_ms": float(line.pop("latency_ms")), "batch": int(line.pop("batch"))}
            found.append(Row(**line, **numbers))  # type: ignore[arg-type]
    return tuple(found)


@functools.cache
def sizes() -> dict[str, Size]:
    """Return the size at 640 px of the models whose size is known, by name."""
    data = json.loads((_HERE / "yolo_flops.json").read_text())
    return {n: Size(gflops=v["gflops"], activations_m=v["conv_act_melem"]) for n, v in data.items()}


def held_out(row: Row) -> bool:
    """Return whether a row is kept from the fit to judge it: a quarter, by the hash of its columns."""
    key = "|".join((row.model, row.device, row.backend, row.precision, row.imgsz))
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) < 2**256 // 4


def size_of(row: Row) -> Size | None:
    """Return the size of a row's model at its image size, None where the model's is not known."""
    known = sizes().get(row.model)
    return known.at(float(row.imgsz)) if known and row.imgsz.isdigit() else None


def place_of(device: str, backend: str) -> tuple[str, str, str]:
    """Return device, engine and unit of a row's words.

    "intel-core-ultra-7-258v (cpu)" with "openvino-cpu" is ("intel-core-ultra-7-258v", "openvino", "cpu").
    """
    bare = re.sub(r"\s*\(.*\)$", "", device)
    engine, _, tail = backend.rpartition("-")
    if not engine or tail not in {*_UNITS, "cuda"}:
        engine, tail = backend, ""
    unit = "gpu" if tail == "cuda" else tail
    if not unit and (bracket := re.search(r"\((?:.*\b)?(cpu|gpu|npu|DLA)\b", device)):
        unit = bracket[1].lower()
    return bare, engine, unit or _usual_unit(bare, engine)


def _usual_unit(device: str, engine: str) -> str:
    if engine in {"tensorrt", "rknn"}:
        return "gpu" if engine == "tensorrt" else "npu"
    on_cpu = {"ncnn", "mnn", "tflite", "executorch", "onnxruntime", "openvino"}
    own_gpu = device.startswith(("jetson", "drive")) and engine not in on_cpu
    return "gpu" if own_gpu else "cpu"


def family_of(model: str) -> str:
    """Return "yolo11" for "yolo11n"."""
    found = re.match(r"^(yolov?\d+)", model)
    return found[1] if found else model
