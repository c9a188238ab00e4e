"""What cannot become a bundle of pictures is refused with the reason, and nothing is left of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from edgekit.models.pipelines import read_pipeline
from tests.conftest import run_edgekit
from tests.pictures import OWN, SLIM, recipe

pytestmark = pytest.mark.slow


def copy(to: Path) -> Path:
    """Return a copy of the shipped pipeline."""
    return Path(shutil.copytree(OWN, to / "pipe"))


def edit(path: Path, **change: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


# Kind of fault: file, and the keys that are changed.
EDITS = {
    "another width": ("text_encoder/config.json", {"hidden_size": 32}), "controlled": ("model_index.json", {"controlnet": ["diffusers", "ControlNetModel"]}),
    "another network": ("model_index.json", {"unet": ["diffusers", "UNet3DConditionModel"]}), "inpainting": ("unet/config.json", {"in_channels": 9}),
    "further input": ("unet/config.json", {"addition_embed_type": "text_time"}), "no channels": ("unet/config.json", {"in_channels": None}),
    "flow matching": ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"}),
    "no text encoder": ("model_index.json", {"text_encoder": [None, None]}),
}  # fmt: skip


def broken(kind: str, folder: Path) -> Path:
    """Return a copy of the shipped pipeline with a fault."""
    pipe = copy(folder)
    weights = pipe / "unet" / "diffusion_pytorch_model.safetensors"
    if kind in EDITS:
        file, change = EDITS[kind]
        edit(pipe / file, **change)
    elif kind == "text encoder gone":
        shutil.rmtree(pipe / "text_encoder")
    elif kind == "no index":
        (pipe / "model_index.json").unlink()
    elif kind == "truncated weights":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif kind == "pickle":
        weights.rename(weights.with_suffix(".bin"))
    elif kind == "nan":
        state = load_file(weights)
        state[next(n for n in state if "attn1.to_q" in n)][0, 0] = float("nan")
        save_file(state, weights)
    return pipe


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("no text encoder", 2, "text_encoder"), ("text encoder gone", 2, "text_encoder"), ("another width", 2, "two models"),
        ("inpainting", 2, "more than latents"), ("flow matching", 2, "FlowMatch"), ("controlled", 2, "controlnet"), ("no channels", 2, "in_channels"),
        ("no index", 2, "model_index.json"), ("another network", 2, "UNet3DConditionModel"), ("further input", 2, "addition_embed_type"),
        ("truncated weights", 2, "unet"), ("pickle", 2, "safetensors"), ("nan", 4, "not finite"),
    ],
)  # fmt: skip
def test_a_broken_pipeline_is_refused_and_nothing_is_left(kind: str, code: int, said: str, tmp_path: Path):
    path = recipe(tmp_path / "r", SLIM, pipeline=broken(kind, tmp_path))
    ran = run_edgekit("compile", path, "-o", tmp_path / "out", "--work-dir", tmp_path / "cache")
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out" / "pics-local").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("prompts: prompts.txt", "prompts: gone.txt", "gone.txt"), ("prompts: prompts.txt", "prompts: empty.txt", "at least 2"),
        ("keep: 0.587", "keep: 0.587, speedup: 2", "keep and speedup"), ("keep: 0.587", "mac_cut: 0.1, speedup: 2", "mac_cut and speedup"),
        ("keep: 0.587", "keep: 0.01", "keeps an eighth"), ("keep: 0.587", "keep: 1.5", "shares below 1"),
        ("steps: 8, guidance", "steps: 0, guidance", "diffusion.steps"), ("bench:", "data: {path: digits-mini}\nbench:", "data"),
        ("passes: [", "passes: [sparsify-2-4, ", "sparsify-2-4"), ("passes: [", "passes: [simplify, ", "slimdiff first"),
        ("judge: ", "judge: no-", "judge"), (str(OWN), "glyphs-ldn", "glyphs-ldm"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_work_is_refused(old: str, new: str, said: str, tmp_path: Path):
    path = recipe(tmp_path, SLIM)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    ran = run_edgekit("compile", path, "-o", tmp_path / "out")
    assert ran.code == 2, ran.err
    assert said in ran.err, ran.err
    assert not (tmp_path / "out" / "pics-local").exists()


def test_a_budget_of_time_for_what_is_not_here_is_refused_before_anything_is_loaded(tmp_path: Path):
    path = recipe(tmp_path / "r", "slimdiff: {speedup: 1.3}")
    for words in ((), ("--dry-run",)):
        ran = run_edgekit("compile", path, "--device", "jetson-orin-nano", "-o", tmp_path / "out", *words)
        assert ran.code == 2, ran.err
        assert "slimdiff.speedup" in ran.err
        assert "export" not in ran.err
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_told_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from edgekit.core.errors import ResourceError
    from edgekit.jobs import scene

    monkeypatch.setattr(scene, "available_bytes", lambda: 1_000_000)
    with pytest.raises(ResourceError, match="parameters need about"):
        scene._refuse_size(read_pipeline(OWN))


def test_without_diffusers_the_extra_is_named(tmp_path: Path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys\nclass R:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'diffusers':\n            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, R())\nimport importlib.util as u\n_f = u.find_spec\n"
        "u.find_spec = lambda n, p=None: None if n.partition('.')[0] == 'diffusers' else _f(n, p)\n"
    )
    path = recipe(tmp_path / "r", SLIM)
    ran = run_edgekit(
        "compile",
        path,
        "-o",
        tmp_path / "out",
        env={"PYTHONPATH": f"{hidden}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert ran.code == 7, ran.err
    assert "edgekit[diffusion]" in ran.err
