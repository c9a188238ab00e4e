"""What telemetry at 10 Hz costs: its CPU seconds over the wall time, and latencies with it on against off.

    python scripts/evidence/telemetry.py            # 20 rounds; about 2 minutes
    python scripts/evidence/telemetry.py --slice    # 3 rounds, for CI; writes nothing

This machine may have no sensors, so a tree of files as large as a Jetson Orin's is read: 10 zones, 3 clocks,
3 rails, 8 cooling devices, 3 over-current counters. Reading kernel files costs a little more than reading these.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from detectors import commit
from options import options_of

from edgekit.core.digest import plain
from edgekit.core.files import write_json
from edgekit.core.wire import artifact_from
from edgekit.jobs.parcel import parcel_of
from edgekit.machine.probe import passport
from edgekit.measure.blocks import block, ratio_of
from edgekit.measure.contest import Contender
from edgekit.measure.telemetry import Sampler

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "evidence" / "telemetry.json"
HZ, RUNS = 10.0, 250


def orin(root: Path) -> Path:
    """Write as many sensor files as an Orin has."""
    files: dict[str, str] = {}
    for k in range(10):
        files |= {
            f"class/thermal/thermal_zone{k}/type": f"zone{k}-thermal",
            f"class/thermal/thermal_zone{k}/temp": "48000",
        }
    for k in range(8):
        files |= {
            f"class/thermal/cooling_device{k}/type": f"cpufreq{k}",
            f"class/thermal/cooling_device{k}/cur_state": "0",
        }
    for k in (0, 4, 8):
        policy = f"devices/system/cpu/cpufreq/policy{k}"
        files |= {f"{policy}/scaling_cur_freq": "1500000", f"{policy}/cpuinfo_max_freq": "2000000"}
    files["class/hwmon/hwmon1/name"] = "ina3221"
    for k, name in enumerate(("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), 1):
        files |= {
            f"class/hwmon/hwmon1/in{k}_label": name,
            f"class/hwmon/hwmon1/in{k}_input": "5000",
            f"class/hwmon/hwmon1/curr{k}_input": "900",
        }
    files["class/hwmon/hwmon2/name"] = "soctherm_oc"
    files |= {f"class/hwmon/hwmon2/oc{k}_event_cnt": "0" for k in (1, 2, 3)}
    for name, text in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def measured(rounds: int) -> dict[str, Any]:
    """Return cost and ratio of on against off, in turns."""
    on: list[tuple[float, float]] = []
    off: list[tuple[float, float]] = []
    costs, sensors = [], 0
    with (
        tempfile.TemporaryDirectory() as folder,
        parcel_of(ROOT / "models/uav-yolov8n.onnx", imgsz=128) as parcel,
    ):
        root = orin(Path(folder))
        main = str(parcel.sources[parcel.artifact["main"]])
        artifact = artifact_from({**parcel.artifact, "main": main, "options": {"threads": 1}})
        with Contender(artifact, [], alone=True) as one:
            one.warm_up()
            for _ in range(rounds):
                for side in ("on", "off", "off", "on"):
                    if side == "off":
                        off.append(block(one.run("model", RUNS)))
                        continue
                    with Sampler(hz=HZ, root=root) as sampler:
                        began = sampler.now_s()
                        on.append(block(one.run("model", RUNS)))
                        report = sampler.report(began, sampler.now_s())
                    costs.append(report.cost)
                    sensors = len(report.columns)
    ratio = ratio_of("median", [m for m, _ in off], [m for m, _ in on])
    return {
        "hz": HZ,
        "sensors": sensors,
        "cost": sum(costs) / len(costs),
        "ratio": plain(ratio),
        "blocks": len(on),
    }


def main() -> int:
    """Measure, print and keep."""
    args = options_of(__doc__, KEPT).parse_args()
    found = measured(3 if args.slice else 20)
    print(json.dumps(found, indent=2))
    if not args.slice:
        write_json(args.out, {**found, "commit": commit(), "machine": passport()})
    inside = found["ratio"]["low"] <= 1 <= found["ratio"]["high"]
    # A slice runs beside whatever else a machine does: it shows that the script works, not what telemetry costs.
    return int(not args.slice and (found["cost"] >= 0.01 or not inside))


if __name__ == "__main__":
    sys.exit(main())
