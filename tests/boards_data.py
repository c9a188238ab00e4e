"""Results of made-up boards: records with known content for pages, stores and comparisons."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgekit.core.result import Energy, Minute, Result, Subject, Telemetry
from edgekit.measure.latency import latency

TAILS = (0.5, 0.9, 0.95, 0.99)
PASSPORT = {
    "arch": "aarch64",
    "board": "Raspberry Pi 5 Model B Rev 1.0",
    "cores_physical": 4,
    "engines": {"onnxruntime": "1.32.0"},
}


def result(device: str, ms: float = 10.0, *, seed: int = 0, runs: int = 1200, **words: object) -> Result:
    """Return a complete result whose runs scatter by 2 % around `ms`."""
    rng = np.random.default_rng(seed)
    samples = tuple(round(float(v), 3) for v in ms * (1 + 0.02 * np.abs(rng.standard_normal(runs))))
    blocks = tuple((k * 0.5, float(np.median(samples[10 * k : 10 * k + 10]))) for k in range(runs // 10))
    made = Result(
        id=f"20261125T120000Z-{device}-{seed:08x}", when="2026-11-25T12:00:00Z", mode="standard", device=device,
        subject=Subject(name="cam", kind="bundle", sha256="0" * 64, variant="onnxruntime-int8", backend="onnxruntime", precision="int8", threads=4),
        passport=PASSPORT, settings={"runs": 1024, "seconds": 60, "seed": 0}, spans=(latency(samples, "model", TAILS),),
        blocks_ms=blocks, telemetry=Telemetry(hz=1, throttled="no"), energy=Energy(why="no power sensor"),
    )  # fmt: skip
    return dataclasses.replace(made, **words)  # type: ignore[arg-type]


def soak(device: str, ms: float, hot_ms: float, *, after_min: int = 12, minutes: int = 35) -> Result:
    """Return a run of over half an hour that slows down when the board gets hot."""
    rng = np.random.default_rng(len(device))
    times = np.arange(0, minutes * 60, 2.0)
    levels = np.where(times < after_min * 60, ms, hot_ms) * (1 + 0.01 * rng.standard_normal(len(times)))
    heat = tuple(float(v) for v in np.minimum(45 + times / 25, 85))
    rows = tuple(
        Minute(start_s=60.0 * k, runs=3000, median_ms=float(np.median(levels[30 * k : 30 * k + 30])), p90_ms=float(hot_ms), hottest_c=heat[30 * k])
        for k in range(minutes)
    )  # fmt: skip
    slower = hot_ms > 1.03 * ms
    seen = Telemetry(
        hz=0.5, at_s=tuple(map(float, times)), columns={"temperature cpu-thermal": heat}, throttled="yes" if slower else "no",
        reasons=("policy0 fell from 2400 to 1500 MHz",) if slower else (),
    )  # fmt: skip
    return dataclasses.replace(
        result(device, ms, seed=len(device)), mode="soak", blocks_ms=tuple(zip(map(float, times), map(float, levels), strict=True)),
        minutes=rows, telemetry=seen, notes=("last 5 minutes slower than the first",) if slower else (),
    )  # fmt: skip
