"""Schedules, prompts and guidance of the light side against diffusers and transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, LCMScheduler
from diffusers.schedulers import scheduling_lcm
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from edgekit.core.errors import RecipeError, VerificationError
from edgekit.frames.tokens import read_tokens, write_tokens
from edgekit.models.pipelines import shipped_pipelines
from edgekit.plans.diffusion import class_of, guided
from edgekit.plans.schedules import Noise, Schedule, check_schedule, denoise, noise_from

THEIRS = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler, "lcm": LCMScheduler}
MIX = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32) * 0.3


def network(x: np.ndarray, t: int) -> np.ndarray:
    """Stand for a network: smooth, and different at every step."""
    return np.tanh(np.einsum("ij,njhw->nihw", MIX, x)) * np.float32(0.5 + t / 1000)


@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 4, 10, 25])
def test_a_schedule_ends_where_diffusers_ends(kind, spacing, predicts, steps, monkeypatch):
    config = {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": predicts,
        "timestep_spacing": spacing, "steps_offset": 1,
    }  # fmt: skip
    more = {} if kind == "dpm++" else {"clip_sample": False, "set_alpha_to_one": False}
    theirs = THEIRS[kind](**config, **more)
    theirs.set_timesteps(steps)
    draws = np.random.default_rng(5)
    monkeypatch.setattr(
        scheduling_lcm,
        "randn_tensor",
        lambda shape, **_: torch.from_numpy(draws.standard_normal(tuple(shape), np.float32)),
    )
    begin = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)
    x = torch.from_numpy(begin.copy())
    for t in theirs.timesteps:
        x = theirs.step(torch.from_numpy(network(x.numpy(), int(t))), t, x, return_dict=False)[0]
    ours = Schedule(kind=kind, steps=steps, noise=noise_from(dict(theirs.config), where="config"))
    assert ours.timesteps().tolist() == theirs.timesteps.tolist()
    found = denoise(ours, begin, network, rng=np.random.default_rng(5))
    np.testing.assert_allclose(found, x.numpy(), atol=2e-5 * float(np.abs(found).max()))


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("rescaled", [False, True])
def test_noise_tables_are_those_of_diffusers(betas, rescaled):
    theirs = DDIMScheduler(
        beta_schedule=betas, rescale_betas_zero_snr=rescaled, prediction_type="v_prediction"
    )
    ours = noise_from(dict(theirs.config), where="config").alphas()
    np.testing.assert_allclose(ours, theirs.alphas_cumprod.numpy(), atol=2e-6)


def test_pixels_are_clipped_as_diffusers_does():
    theirs = DDIMScheduler(clip_sample=True, clip_sample_range=0.8)
    theirs.set_timesteps(5)
    begin = np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    x = torch.from_numpy(begin.copy())
    for t in theirs.timesteps:
        x = theirs.step(torch.from_numpy(network(x.numpy(), int(t))), t, x, return_dict=False)[0]
    ours = Schedule(kind="ddim", steps=5, noise=noise_from(dict(theirs.config), where="config"))
    np.testing.assert_allclose(
        denoise(ours, begin, network, rng=np.random.default_rng(0)), x.numpy(), atol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"beta_schedule": "sigmoid"}, "beta_schedule"), ({"prediction_type": "flow"}, "prediction_type"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas"), ({"thresholding": True}, "thresholding"),
        ({"trained_betas": [0.1]}, "trained_betas"),
    ],
)  # fmt: skip
def test_a_schedule_that_is_not_known_is_refused(change, word):
    with pytest.raises(RecipeError, match=word):
        noise_from({"num_train_timesteps": 1000, **change}, where="scheduler_config.json")


def test_steps_out_of_range_are_refused():
    shifted = Noise(offset=1)
    with pytest.raises(RecipeError, match="reach training step 1000"):
        check_schedule("dpm++", 999, shifted, where="generate")
    for kind, steps in (("ddim", 0), ("ddim", 1000), ("lcm", 51), ("euler", 5)):
        with pytest.raises(RecipeError):
            check_schedule(kind, steps, Noise(), where="generate")


def test_noise_that_hides_everything_has_a_logarithm_still():
    noise = Noise(rescaled=True, predicts="v_prediction", spacing="trailing")
    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    for kind in ("ddim", "dpm++", "lcm"):
        found = denoise(Schedule(kind=kind, steps=5, noise=noise), x, network, rng=np.random.default_rng(0))
        assert np.isfinite(found).all()
    with pytest.raises(RecipeError, match="rescale_betas_zero_snr"):
        noise_from({"rescale_betas_zero_snr": True}, where="config")


def test_guidance_pushes_away_from_the_answer_without_a_prompt():
    seen = []

    def run(x, t, condition):
        seen.append(len(x))
        return np.broadcast_to(condition.reshape(-1, 1, 1, 1), x.shape).astype(np.float32)

    x = np.zeros((3, 1, 2, 2), np.float32)
    wanted, blank = np.array([1.0, 2.0, 3.0]), np.array([0.5])
    found = guided(run, wanted, blank, 3.0)(x, 5)
    np.testing.assert_allclose(found[:, 0, 0, 0], 0.5 + 3 * (wanted - 0.5))
    assert guided(run, wanted, blank, 1.0)(x, 5)[2, 0, 0, 0] == 3
    assert seen == [6, 3]


@pytest.fixture(scope="module")
def tokenizers():
    folder = shipped_pipelines()["glyphs-ldm"] / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder), read_tokens(folder, length=16)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(
        st.characters(exclude_categories=("Cs", "Cn", "Cc", "Co", "Cf", "Mn", "Mc", "Me")), max_size=30
    )
)
def test_prompts_become_the_tokens_that_transformers_gives(tokenizers, text):
    theirs, ours = tokenizers
    wanted = theirs(text, padding="max_length", truncation=True).input_ids
    assert ours.encode(text)[0].tolist() == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red three on black",
        "  The digit SEVEN\tin Blue ",
        "it's 42 isn't: ünïcode 日本 ² half½",
        "x " * 40,
    ],
)
def test_usual_prompts_do_too(tokenizers, text):
    theirs, ours = tokenizers
    assert ours.encode(text)[0].tolist() == theirs(text, padding="max_length", truncation=True).input_ids


def test_tokens_that_do_not_fit_are_counted(tokenizers):
    assert tokenizers[1].dropped("x " * 40) == 40 - 14
    assert tokenizers[1].dropped("a red three on black") == 0


def test_tokens_are_written_and_read_again(tokenizers, tmp_path: Path):
    write_tokens(tokenizers[1], tmp_path)
    again = read_tokens(tmp_path, length=16)
    assert (again.ids, again.ranks, again.pad) == (tokenizers[1].ids, tokenizers[1].ranks, tokenizers[1].pad)


@pytest.mark.parametrize("damage", ["missing", "no json", "other kind", "no end"])
def test_a_damaged_tokenizer_is_refused(damage, tmp_path: Path):
    write = {
        "no json": "{",
        "other kind": json.dumps({"model": {"type": "WordPiece"}}),
        "no end": json.dumps({"a": 1}),
    }
    if damage == "no end":
        (tmp_path / "vocab.json").write_text(write[damage])
        (tmp_path / "merges.txt").write_text("a b\n")
    elif damage != "missing":
        (tmp_path / "tokenizer.json").write_text(write[damage])
    with pytest.raises(VerificationError, match="no tokenizer"):
        read_tokens(tmp_path, length=16)


def test_a_class_is_named_by_label_or_number():
    assert class_of(("cat", "dog"), " dog ") == class_of(("cat", "dog"), "1") == 1
    with pytest.raises(RecipeError, match="no such class"):
        class_of(("cat", "dog"), "bird")
