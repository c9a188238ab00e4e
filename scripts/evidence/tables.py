"""Rebuild the tables of README, cards and pages from the JSON of the last measurements.

python scripts/evidence/tables.py            # writes between the markers
python scripts/evidence/tables.py --check    # exits 1 where one is stale
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import bench_tables
import gamma_tables
import growing_tables
import slim_tables
from where import machine

from edgekit.predict.latency import judge

ROOT = Path(__file__).resolve().parent.parent.parent
EVIDENCE = ROOT / "docs" / "evidence"


def last(name: str) -> dict[str, Any]:
    """Return the newest measurement of a name; its date stands in the file's name."""
    data: dict[str, Any] = json.loads(max(EVIDENCE.glob(f"{name}-*.json")).read_text())
    return data


def peers() -> str:
    """Return the table of ratios against ultralytics."""
    data = last("vs_ultralytics")
    lines = ["| span | edgekit | peer | peer's time | times as fast (rounds) |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['span']} | {row['edgekit_ms']:.1f} ms | {row['peer']} | {row['peer_ms']:.1f} ms "
        f"| {row['times_as_fast']:.2f} ({row['least']:.2f} to {row['most']:.2f}) |"
        for row in data["ratios"]
    ]
    scores = ", ".join(f"{name} {value:.4f}" for name, value in data["map50"].items())
    tools = ", ".join(f"{k} {v}" for k, v in data["tools"].items())
    lines += ["", f"mAP50 on the same {data['images']} images by the same code: {scores}."]
    lines += [
        f"Measured {data['date']} on {machine(data)}, {data['rounds']} rounds, {tools}: `scripts/bench/vs_ultralytics.py`."
    ]
    return "\n".join(lines)


def verdict() -> str:
    """Return the verdict of the shipped recipe in its standard mode."""
    data = last("uav_yolov8n")
    chosen = data["chosen"]
    lines = ["| | float32 | int8 |", "|---|---|---|"]
    for name in ("map50", "map50_95"):
        lines.append(f"| {name} | {data['float32']['scores'][name]:.4f} | {chosen['scores'][name]:.4f} |")
    for band in ("under 8", "8-16", "16-32", "over 32"):
        lines.append(
            f"| AP50, {band} px | {data['float32']['by_size'][band]:.4f} | {chosen['by_size'][band]:.4f} |"
        )
    for name in data["classes"]:
        lines.append(
            f"| AP50, {name} | {data['float32']['by_class'][name]:.4f} | {chosen['by_class'][name]:.4f} |"
        )
    low, high = chosen["interval"]
    lines += [
        "",
        f"Drop of map50 {chosen['drop']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, {chosen['images']} images, {data['variant']}.",
    ]
    lines += [f"Measured {data['date']} on {machine(data)} by `scripts/evidence/uav_yolov8n.py`."]
    return "\n".join(lines)


def predictor() -> str:
    """Return the predictor's errors on the held-out rows, computed now."""
    rich, poor = judge()
    return (
        f"median relative error {100 * rich.median_error:.1f} % on {rich.rows} held-out rows whose device and backend "
        f"have at least 4 fitted rows ({100 * rich.covered:.0f} % inside their band), {100 * poor.median_error:.1f} % on "
        f"the other {poor.rows} ({100 * poor.covered:.0f} % inside)."
    )


def boards_of_tensorrt() -> str:
    """Return the predictor's errors for TensorRT: held-out rows, and boards without any row."""
    data = json.loads((EVIDENCE / "predictor.json").read_text())
    held, left = data["held_out_by_family"], data["leave_one_device_out"]
    lines = [
        f"TensorRT, {held['all']['rows']} held-out rows of boards that have others: median error "
        f"{100 * held['all']['median']:.1f} %, worst {100 * held['all']['worst']:.0f} %. Boards predicted without any row of theirs:",
        "", "| board left out | rows | median error | worst |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {name if name != 'all' else 'all'} | {one['rows']} | {100 * one['median']:.0f} % | {100 * one['worst']:.0f} % |"
        for name, one in left.items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            "By `scripts/evidence/predictor.py`, from published rows; nothing was measured on these boards.",
        ]
    )


def dialects() -> str:
    """Return what a host found of every network's TensorRT files, over all targets."""
    data = json.loads((EVIDENCE / "jetson.json").read_text())
    rows = [r for r in data["rows"] if "refused" not in r]
    lines = [
        "| network | precision | targets | outputs apart | mAP50 drop, worst target | images | accepted by TensorRT for RTX |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, precision in dict.fromkeys((r["network"], r["precision"]) for r in rows):
        group = [r for r in rows if (r["network"], r["precision"]) == (name, precision)]
        apart = [r["outputs_apart"] for r in group]
        worst = max(group, key=lambda r: r["drop"] or -1.0)
        built = [c["state"] for r in group for c in r["checks"] if c["name"].startswith("parse and build")]
        drop = (
            "not judged"
            if worst["drop"] is None
            else f"{worst['drop']:+.4f} ({worst['interval'][0]:+.4f} to {worst['interval'][1]:+.4f})"
        )
        lines.append(
            f"| {name} | {precision} | {len(group)} | {min(apart):.1e} to {max(apart):.1e} | {drop} | {worst['images'] or '-'} "
            f"| {built.count('accepted')} of {len(built)} files |"
        )  # fmt: skip
    refused = [r for r in data["rows"] if "refused" in r]
    why = f"Refused: {'; '.join(sorted({r['refused'] for r in refused}))}. " if refused else ""
    return "\n".join([
        *lines, "",
        f"Five dialects, nine targets (Xavier NX 5.1, Orin 6.0, 6.2 typed and weak, 7.2, Thor 7.1, AGX Orin with 11.4.1, DLA of both), "
        f"onnxruntime on the graph that TensorRT reads; classifier and ViT have random weights and inputs. {why}{machine(data)}",
    ])  # fmt: skip


def sparsity() -> str:
    """Return what 2:4 pruning costs the shipped detectors, with and without fitting."""
    data = json.loads((EVIDENCE / "sparsity.json").read_text())
    lines = [
        "| detector | what stays | mAP50 of the guard, dense | all layers pruned | layers within 0.01 | mAP50 of 200 others then |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in data["rows"]:
        how = "fitted" if row["fitted"] else "as it was"
        lines.append(
            f"| {row['detector']} | {how} | {row['float']:.3f} | {row['runs']['0']:.3f} | {row['sparse_layers']} of {row['layers']} | {row['map50']:.3f} |"
        )
    return "\n".join(
        [*lines, "", f"The guard: 256 training images that calibration did not see. {machine(data)}"]
    )


def demo() -> str:
    """Return what `scripts/demo` printed last, progress left out."""
    path = max(EVIDENCE.glob("demo-*.txt"))
    return f"```text\n{path.read_text().strip()}\n```"


def runs(data: str) -> dict[str, list[dict[str, Any]]]:
    """Return the finished and scored runs of a set by row, in the order of the table."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((EVIDENCE / "detectors").glob(f"{data}-*.json")):
        run = json.loads(path.read_text())
        if "scores" in run:
            found.setdefault(run["row"], []).append(run)
    return {row: found[row] for row in _ROWS[data] if row in found}


_ROWS = {
    "uav-mini": {"yolov8n": "YOLOv8n", "yolov8n-p2": "YOLOv8n-p2", "hierlight-yolo-n": "HierLight-YOLO-N"},
    "thermal-mini": {
        "yolov8n-light": "YOLOv8n, light head", "yolov8n-light-slide": "YOLOv8n, light head, SlideLoss",
        "mobilenetv4": "MobileNetV4 backbone", "ms-yolo": "MS-YOLO: both",
    },
}  # fmt: skip


def spread(values: list[float], digits: int = 3) -> str:
    """Return the mean of the seeds, with half their range where there are several."""
    mean = sum(values) / len(values)
    half = (max(values) - min(values)) / 2
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")


def compiled_words(group: list[dict[str, Any]]) -> str:
    """Return the latency of the best compiled variant of a row's first seed that was compiled."""
    for run in group:
        if "compiled" in run:
            middle = next(p for p in run["compiled"]["latency"][0]["percentiles"] if p["share"] == 0.5)
            label = run["compiled"]["latency"][0]["label"]
            return f"{middle['plain_ms']:.1f} ms, {label} ({run['compiled']['variant']})"
    return "not measured"


def footer(data: str, groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return what a table of runs was made of, and which runs are missing."""
    every = [r for g in groups.values() for r in g]
    first = every[0]
    seeds = ", ".join(f"{_ROWS[data][row]} {len(g)}" for row, g in groups.items())
    missing = [name for row, name in _ROWS[data].items() if row not in groups]
    days = sorted({r["date"] for r in every})
    lines = [
        f"Each row: {first['images']:,} training images (320-px tiles), {first['settings']['epochs']} epochs, batch "
        f"{first['settings']['batch']}, the same schedule and order; scored at 640 px on {first['scores']['images']} images. "
        f"Seeds: {seeds}; one seed has no spread.",
    ]
    if missing:
        lines.append(f"Not trained yet: {'; '.join(missing)}.")
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    lines.append(f"Measured {when} on {machine(first)} by `scripts/evidence/detectors.py`.")
    return lines


def uav() -> str:
    """Return the comparison of the aerial detectors."""
    groups = runs("uav-mini")
    lines = [
        "| | parameters | GFLOPs | AP50 | AP50-95 | AP50 under 16 px | best variant's median |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, group in groups.items():
        counts, scores = group[0]["counts"], [r["scores"] for r in group]
        lines.append(
            f"| {_ROWS['uav-mini'][row]} | {counts['params_unfused'] / 1e6:.2f} M | {counts['gflops_fused']:.1f} "
            f"| {spread([s['map50'] for s in scores])} | {spread([s['map50_95'] for s in scores])} "
            f"| {spread([s['under_16'] for s in scores])} | {compiled_words(group)} |"
        )
    return "\n".join([*lines, "", *footer("uav-mini", groups)])


def thermal() -> str:
    """Return the comparison of the thermal detectors."""
    groups = runs("thermal-mini")
    names = next(iter(groups.values()))[0]["classes"]
    lines = [
        f"| | GFLOPs | precision | recall | AP50 | AP50-95 | AP50 of {', '.join(names)} | best variant's median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, group in groups.items():
        scores, points = [r["scores"] for r in group], [r["point"] for r in group]
        by_class = ", ".join(spread([s["by_class"][n] for s in scores]) for n in names)
        lines.append(
            f"| {_ROWS['thermal-mini'][row]} | {group[0]['counts']['gflops_fused']:.1f} "
            f"| {spread([p['precision'] for p in points])} | {spread([p['recall'] for p in points])} "
            f"| {spread([s['map50'] for s in scores])} | {spread([s['map50_95'] for s in scores])} | {by_class} | {compiled_words(group)} |"
        )
    return "\n".join([*lines, "", *footer("thermal-mini", groups)])


def int8(data: str, row: str) -> str:
    """Return what a compile of the shipped weights found: every variant, the drop, what stays in float."""
    run = next(r for r in runs(data)[row] if r["seed"] == 0)
    if "compiled" not in run:
        return "Not compiled yet."
    made = run["compiled"]
    lines = ["| variant | style | model latency | map50 |", "|---|---|---|---|"]
    for v in made["variants"]:
        value = "not judged" if v["map50"] is None else f"{v['map50']:.4f}"
        shown = "-" if v["contest_ms"] is None else f"{v['contest_ms']:.2f} ms"
        lines.append(f"| {v['name']} | {v['style'] or '-'} | {shown} | {value} |")
    best = {}
    for v in made["variants"]:
        if v["contest_ms"] is not None:
            best[v["name"]] = min(v["contest_ms"], best.get(v["name"], 1e9))
    for engine in ("openvino", "onnxruntime"):
        if {f"{engine}-fp32", f"{engine}-int8"} <= set(best):
            ratio = best[f"{engine}-fp32"] / best[f"{engine}-int8"]
            lines += ["", f"{engine}: int8 is {ratio:.2f} times as fast as float32."]
    accuracy = made["accuracy"]
    low, high = accuracy["interval"]
    guard = next((f["guard"] for f in made["passes"].values() if "guard" in f), {})
    kept = guard.get("exempted", [])
    words = (
        f"{len(kept)} layers stay in float for accuracy: {', '.join(kept)}"
        if kept
        else "no layer had to stay in float for it"
    )
    lines += [
        "", f"Drop of map50 {accuracy['drop']:+.4f} ({made['variant']}), 95 % interval {low:+.4f} to {high:+.4f}, {accuracy['images']} images; {words}.",
        f"Measured {made['when']} on {machine(made)} by `scripts/evidence/detectors_judge.py --latency`.",
    ]  # fmt: skip
    return "\n".join(lines)


def levels() -> str:
    """Return where the time of HierLight-YOLO-N goes."""
    data = last("levels-hierlight-yolo-n-uav")
    lines = ["| part | share of the time | runs in |", "|---|---|---|"]
    lines += [
        f"| {k} | {100 * v:.1f} % | {' '.join(data['dtypes'].get(k, []))} |" for k, v in data["parts"].items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"{data['variant']}, by the engine's profiler, {data['date']}, {machine(data)}: `scripts/evidence/levels.py`.",
        ]
    )


def decode() -> str:
    """Return what decoding on the host gained."""
    data = last("host_decode")
    lines = [
        "| engine | span | decoder in the network | on the host | times as fast |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['variant']} | {r['span'].replace('_', ' ')} | {r['network_ms']:.1f} ms | {r['host_ms']:.1f} ms | {r['times_as_fast']:.2f} |"
        for r in data["rows"]
    ]
    words = f"Medians of {data['runs']} runs or more, one process a contender, alternating; {data['date']}, {machine(data)}"
    return "\n".join([*lines, "", f"{words}: `scripts/bench/host_decode.py`."])


TABLES = {
    "demo": (("README.md",), demo),
    "peers": (("README.md",), peers),
    "verdict": (("models/uav-yolov8n.md",), verdict),
    "uav": (("README.md",), uav),
    "thermal": (("README.md",), thermal),
    "int8-hierlight": (("models/hierlight-yolo-n-uav.md",), lambda: int8("uav-mini", "hierlight-yolo-n")),
    "int8-ms-yolo": (("models/ms-yolo-thermal.md",), lambda: int8("thermal-mini", "ms-yolo")),
    "levels": (("models/hierlight-yolo-n-uav.md",), levels),
    "decode": (("docs/decisions/0005-boxes-are-decoded-on-the-host.md",), decode),
    "compare": (("README.md", "docs/results.md"), bench_tables.compare),
    "telemetry": (("docs/measuring.md",), bench_tables.telemetry),
    "percentiles": (("docs/measuring.md",), bench_tables.percentiles),
    "boards": (("README.md",), bench_tables.boards),
    "predictor": (("README.md", "docs/measuring.md"), predictor),
    "dialects": (("docs/jetson.md",), dialects),
    "sparsity": (("docs/jetson.md",), sparsity),
    "boards-of-tensorrt": (("docs/jetson.md",), boards_of_tensorrt),
    "gamma-detect": (("docs/gamma-quant.md",), lambda: gamma_tables.grid("detect")),
    "gamma-digits": (("docs/gamma-quant.md",), lambda: gamma_tables.grid("digits")),
    "gamma-wear": (("docs/gamma-quant.md",), lambda: gamma_tables.grid("wear")),
    "sensor-front": (("docs/gamma-quant.md",), gamma_tables.front),
    "gamma-int8": (("docs/gamma-quant.md",), gamma_tables.with_int8),
    "gamma": (("README.md",), gamma_tables.short),
    "growing-accuracy": (("docs/progressive-loading.md",), growing_tables.accuracy),
    "growing-int8": (("docs/progressive-loading.md",), growing_tables.with_int8),
    "growing-serve": (("docs/progressive-loading.md",), growing_tables.serve),
    "slim-arms": (("README.md", "docs/slimdiff.md"), slim_tables.arms),
    "slim-time": (("docs/slimdiff.md",), slim_tables.by_time),
    "slim-sd15": (("README.md", "docs/slimdiff.md"), slim_tables.sd15),
    "slim-int8": (("docs/slimdiff.md",), slim_tables.int8),
    "slim-peers": (("docs/slimdiff.md",), slim_tables.peers),
}


def main() -> int:
    """Write or check every table."""
    stale = 0
    for name, (pages, make) in TABLES.items():
        text = make()
        for page in pages:
            path = ROOT / page
            old = path.read_text()
            new = re.sub(
                rf"(<!-- {name} -->).*?(<!-- /{name} -->)",
                lambda m, t=text: f"{m[1]}\n{t}\n{m[2]}",
                old,
                flags=re.DOTALL,
            )
            if f"<!-- {name} -->" not in old:
                raise SystemExit(f"{page}: has no marker {name}")
            if "--check" in sys.argv and new != old:
                print(f"{page}: the table {name!r} is stale, run scripts/evidence/tables.py")
                stale += 1
            elif new != old:
                path.write_text(new)
    for path, text in gamma_tables.pictures().items():
        same = path.exists() and path.read_text() == text
        if "--check" in sys.argv and not same:
            print(f"{path.relative_to(ROOT)}: the picture is stale, run scripts/evidence/tables.py")
            stale += 1
        elif not same:
            path.write_text(text)
    return stale


if __name__ == "__main__":
    sys.exit(main() > 0)
