"""The shipped diffusion pipeline, and recipes for it that take seconds."""

from __future__ import annotations

from pathlib import Path

from edgekit.models.pipelines import shipped_pipelines

OWN = shipped_pipelines()["glyphs-ldm"]
PROMPTS = [p for p in (OWN / "prompts.txt").read_text().splitlines() if p and not p.startswith("#")]
SLIM = "slimdiff: {keep: 0.587, prompts: 24, steps: 8, record: 5, probe_prompts: 3, probe_steps: 5, round_ranks: 1, round_neurons: 8}"


def recipe(folder: Path, passes: str = "", *, pipeline: Path = OWN, more: str = "", gates: str = "") -> Path:
    """Write a recipe of the shipped pipeline, or of another one."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "prompts.txt").exists():
        (folder / "prompts.txt").write_text("\n".join(PROMPTS[:40]) + "\n")
    path = folder / "pics.yaml"
    path.write_text(
        f"schema: edgekit/recipe/v1\nmodel: {{pipeline: {pipeline}}}\n"
        f"diffusion: {{prompts: prompts.txt, held_out: 4, steps: 8, guidance: 3, judge: {OWN / 'judge.onnx'}, judged: 30{more}}}\n"
        f"passes: [{passes}]\ngates: {{{gates}}}\nbench: {{mode: smoke}}\n"
    )
    return path
