"""Make the tables of slimming from its JSON files; `tables.py` writes them into the pages."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

from where import machine

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "evidence" / "slimdiff"
_NAMES = {
    "magnitude": "magnitude", "plain": "plain SVD, magnitude neurons", "modegpt": "columns, SVD of values, Nyström (as MoDeGPT)",
    "uniform": "SlimDiff, the same share everywhere", "slimdiff": "SlimDiff, shares by what each group matters",
}  # fmt: skip


def last(name: str) -> dict[str, Any]:
    """Return the newest run of a kind."""
    data: dict[str, Any] = json.loads(max(KEPT.glob(f"{name}-*.json")).read_text())
    return data


def _share(values: list[float]) -> str:
    return f"{100 * mean(values):.1f} ± {50 * (max(values) - min(values)):.1f}"


def arms() -> str:
    """Return errors and what the judge sees, by method and budget."""
    data = last("glyphs")
    lines = [
        "| kept | method | one step | final latents | judge sees the digit, % |",
        "|---|---|---|---|---|",
    ]
    lines.append(f"| 1 | as it came | 0 | 0 | {_share(data['arms']['dense']['right'])} |")
    for name, arm in data["arms"].items():
        method, _, keep = name.partition(" ")
        if keep:
            lines.append(
                f"| {keep} | {_NAMES[method]} | {arm['step_error']:.2g} | {mean(arm['latent_error']):.2g} | {_share(arm['right'])} |"
            )
    lines += [
        "",
        f"Relative squared errors on prompts that nothing was fitted to; {data['seeds']} sampling seeds of {data['pictures']} pictures each, ± half "
        f"of their span; {data['steps']} DDIM steps, guidance {data['guidance']:g}; calibrated on {data['calibration_prompts']} prompts. "
        f"{data['arms']['dense']['params'] / 1e6:.2f} M parameters, a third of them in layers that can be cut. "
        f"Measured {data['date']} on {machine(data)}: `scripts/evidence/slimdiff.py`.",
    ]
    return "\n".join(lines)


def sd15() -> str:
    """Return sizes and step times of Stable Diffusion's configuration."""
    data = last("sd15")
    engines = list(data["steps"])
    heads = "".join(f" {e}, s a step | times as fast |" for e in engines)
    lines = [f"| network | parameters | removed |{heads}", "|---|---|---|" + "---|---|" * len(engines)]
    for name in ("dense", *data["arms"]):
        arm = data["arms"].get(name)
        params = arm["params"] if arm else data["params"]
        removed = f"{arm['removed'] / 1e6:.1f} M of {arm['asked'] / 1e6:.1f} M" if arm else "-"
        times = "".join(
            f" {data['steps'][e]['median_s'][name]:.2f} | {data['steps'][e]['times_as_fast'][name]:.2f} |"
            for e in engines
        )
        lines.append(f"| {name} | {params / 1e6:.1f} M |{f' {removed} |'}{times}")
    phases = "; ".join(f"{k} {v:.1f} min" for k, v in data["phases_min"].items())
    lines += [
        "",
        f"Random weights: sizes and times are real, pictures are none. Calibrated on 8 prompts and 4 guided steps at 256 pixels, probed on one prompt. Timed: one latent of 64 x 64 without guidance, float32, 2 threads, one process a "
        f"network, {data['rounds']} alternating rounds, medians. Slimming took {data['peak_gb']:.1f} GB at most; end to end {data['minutes']:.0f} minutes ({phases}). "
        f"Measured {data['date']} on {machine(data)}: `scripts/evidence/slimdiff_sd15.py`.",
    ]
    return "\n".join(lines)


def by_time() -> str:
    """Return what a budget of time came to."""
    data = last("time")
    ratio, low, high = data["delivered"]
    lines = ["| share of the multiply-adds | times as fast |", "|---|---|"]
    lines += [f"| {t['share']:.3f} | {t['ratio']:.3f} |" for t in data["timed"]]
    lines += [
        f"| **delivered, measured anew** | **{ratio:.3f}** (blocks {low:.2f} to {high:.2f}) |",
        "",
        f"Asked for: {data['asked']:g} times as fast. A DiT of {data['params'] / 1e6:.1f} M parameters, random weights; "
        f"{data['cuttable_share_of_macs']:.0%} of its multiply-adds lie in layers that can be cut; {data['params_after'] / 1e6:.1f} M parameters are left. "
        f"{data['engine']}, measured {data['date']} on {machine(data)}: `scripts/evidence/slimdiff_time.py`.",
    ]
    return "\n".join(lines)


def peers() -> str:
    """Return time and memory of a picture against diffusers and optimum."""
    data = json.loads(max((ROOT / "docs" / "evidence").glob("vs_diffusers-*.json")).read_text())
    lines = [
        "| | ms a picture | times as fast as diffusers | peak memory | start to first picture | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in data["rows"].items():
        lines.append(
            f"| {name} | {1000 * row['median_s']:.1f} | {row['times_as_fast_as_diffusers']:.2f} | {row['peak_mb']:.0f} MB | {row['ready_s']:.1f} s | {row['apart']:.4f} |"
        )
    tools = ", ".join(f"{k} {v}" for k, v in data["tools"].items())
    lines += [
        "",
        f"`glyphs-ldm` as it came, {data['steps']} DDIM steps, guidance {data['guidance']:g}, one prompt at a time from the same latents; one process each, "
        f"{data['rounds']} alternating rounds, medians; differences of pixels from 0 to 1 against diffusers, an edgekit picture is rounded to 8 bits. "
        f"{tools}. Measured {data['date']} on {machine(data)}: `scripts/bench/vs_diffusers.py`.",
    ]
    return "\n".join(lines)


def int8() -> str:
    """Return size, time and pictures of float32, slimmed, int8 and both."""
    data = last("int8")
    lines = [
        "| | variant | network, MB | a step, times as fast (blocks) | latent error | judge sees the digit, % |",
        "|---|---|---|---|---|---|",
    ]
    for row in data["rows"]:
        error = f"{row['latent_error']:.2g}" if row["latent_error"] else "0"
        ratio, low, high = row["step_ratio"]
        faster = f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        lines.append(
            f"| {row['what']} | {row['variant']} | {row['mb']:.2f} | {faster} | {error} | {100 * row['right']:.1f} |"
        )
    shaky = (
        " Times are of short runs and were not steady."
        if any(r["label"] == "unstable" for r in data["rows"])
        else ""
    )
    lines += [
        "",
        f"`glyphs-ldm`, {data['judged']} pictures judged of each, times and latent errors against the pipeline as it came in float32, alternating runs.{shaky} "
        f"Measured {data['date']} on {machine(data)}: `scripts/evidence/slimdiff_int8.py`.",
    ]
    return "\n".join(lines)
