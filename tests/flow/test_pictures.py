"""A diffusion pipeline from its folder to pictures of the bundle: slimmed, quantized, judged, without torch at the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel, StableDiffusionPipeline
from onnx import numpy_helper
from safetensors.torch import load_file

import edgekit
from edgekit.calibration import slimming
from edgekit.calibration.rewriting import cut
from edgekit.calibration.walks import Seen as SeenOnTheWay
from edgekit.calibration.walks import Walk, answers_at, apart, evenly, walked
from edgekit.core.cache import StepCache
from edgekit.graph.half import restore_half
from edgekit.graph.int8_weights import store_int8
from edgekit.jobs.ask import refuse_foreign
from edgekit.models.pipelines import load_network, read_pipeline
from edgekit.passes.protocol import Scene
from edgekit.passes.slimdiff import conditions
from edgekit.plans.schedules import Schedule
from tests import pictures
from tests.conftest import run_edgekit

pytestmark = pytest.mark.slow

OWN, PROMPTS, SLIM = pictures.OWN, pictures.PROMPTS, pictures.SLIM


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped pipeline, slimmed and quantized."""
    folder = tmp_path_factory.mktemp("slim")
    path = pictures.recipe(
        folder, f"{SLIM}, quantize-int8", gates="latent_error: 0.1, task_drop: 0.1, speedup: 0.1"
    )
    ran = run_edgekit("compile", path, "-o", folder / "out")
    assert ran.code == 0, ran.err + ran.out
    return folder / "out" / "pics-local"


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped pipeline as it is."""
    folder = tmp_path_factory.mktemp("dense")
    ran = run_edgekit("compile", pictures.recipe(folder), "-o", folder / "out")
    assert ran.code == 0, ran.err
    return folder / "out" / "pics-local"


def weights(path: Path) -> int:
    """Return the elements of a graph's weights."""
    return sum(
        numpy_helper.to_array(i).size
        for i in onnx.load(path).graph.initializer
        if len(i.dims) > 1 or (i.dims and i.dims[0] > 8)
    )


# S12
def test_the_slimmed_graph_has_as_many_weights_less_as_was_said(slim: Path, dense: Path):
    facts = json.loads((slim / "report.json").read_text())["passes"]["slimdiff"]
    assert 0.99 * 0.587 <= facts["kept_share"] <= 0.587
    graphs = [f / "bundle" / "variants" / "onnxruntime-fp32" / "main" / "model.onnx" for f in (dense, slim)]
    assert weights(graphs[0]) - weights(graphs[1]) == facts["params_removed"]
    for tensor in onnx.load(graphs[1]).graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 2 and min(values.shape) > 1:
            assert not (np.abs(values).sum(0) == 0).any(), tensor.name
            assert not (np.abs(values).sum(1) == 0).any(), tensor.name
    state = load_file(slim / "slim-network" / "diffusion_pytorch_model.safetensors")
    assert sum(t.numel() for t in state.values()) == facts["params_after"]


def test_gates_and_report_speak_of_pictures(slim: Path):
    report = json.loads((slim / "report.json").read_text())
    verdicts = {v["gate"]: v for v in report["verdicts"]}
    assert {v["state"] for v in verdicts.values()} == {"pass"}
    paints = report["paints"]
    assert len(paints["errors"]) == 4
    assert 0 < float(np.mean(paints["errors"])) < 0.1
    assert paints["judged"] == 30
    assert paints["dense_right"] > 0.9
    page = (slim / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "What was cut" in page
    assert "clip score: not taken" in page
    assert (slim / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert {v["precision"] for v in report["variants"]} >= {"fp32", "int8"}


@pytest.mark.parametrize("schedule", ["ddim", "dpm++"])
def test_the_bundle_paints_what_diffusers_paints_from_the_same_noise(dense: Path, schedule: str):
    noise = np.random.default_rng(3).standard_normal((2, 4, 8, 8)).astype(np.float32)
    prompts = PROMPTS[:2]
    with edgekit.load(dense / "bundle", variant="onnxruntime-fp32") as model:
        ours = model.generate(prompts, latents=noise, schedule=schedule, steps=6, guidance=3)
    pipe = StableDiffusionPipeline.from_pretrained(
        OWN, torch_dtype=torch.float32, safety_checker=None, low_cpu_mem_usage=False
    )
    pipe.set_progress_bar_config(disable=True)
    if schedule == "dpm++":
        from diffusers import DPMSolverMultistepScheduler

        pipe.scheduler = DPMSolverMultistepScheduler.from_config(
            pipe.scheduler.config, timestep_spacing="leading"
        )
    theirs = pipe(
        prompts,
        latents=torch.from_numpy(noise),
        num_inference_steps=6,
        guidance_scale=3.0,
        output_type="np",
        height=32,
        width=32,
    ).images
    # Of 255 grey levels; float32 kernels of two engines, and one rounding.
    assert np.abs(ours.images.astype(float) - theirs * 255).max() <= 1.5
    latents = pipe(
        prompts,
        latents=torch.from_numpy(noise),
        num_inference_steps=6,
        guidance_scale=3.0,
        output_type="latent",
        height=32,
        width=32,
    ).images
    assert apart(ours.latents, latents.numpy()) < 1e-8


def test_no_torch_and_no_diffusers_are_needed_to_paint(slim: Path, tmp_path: Path):
    code = f"""
import sys, json
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "diffusers", "transformers", "onnx", "pydantic", "yaml", "click", "tokenizers", "cv2", "PIL"}}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
import numpy as np
import edgekit.runtime
with edgekit.runtime.load({str(slim / "bundle")!r}) as model:
    found = model.generate({PROMPTS[0]!r}, seed=7)
    np.save({str(tmp_path / "image.npy")!r}, found.images)
    print(model.variant.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    with edgekit.load(slim / "bundle") as model:
        assert model.variant.name == done.stdout.strip()
        assert (model.generate(PROMPTS[0], seed=7).images == np.load(tmp_path / "image.npy")).all()


def test_what_a_compile_left_is_no_strangers(slim: Path):
    assert (slim / "slim-network").is_dir()
    refuse_foreign(slim)


def test_golden_pictures_come_again(slim: Path):
    golden = slim / "bundle" / "golden"
    said = json.loads((golden / "golden.json").read_text())
    with edgekit.load(slim / "bundle") as model:
        found = model.generate(said["prompts"], seed=said["seed"])
    assert apart(found.latents, np.load(golden / "latents.npy")) < 1e-6


def test_weights_in_int8_keep_the_pictures_in_a_third_of_the_file(dense: Path, tmp_path: Path):
    path = pictures.recipe(tmp_path, "quantize-weights", gates="latent_error: 0.02")
    ran = run_edgekit("compile", path, "-o", tmp_path / "out")
    assert ran.code == 0, ran.err + ran.out
    found = tmp_path / "out" / "pics-local"
    said = json.loads((found / "report.json").read_text())
    assert 0 < np.mean(said["paints"]["errors"]) < 0.02

    def sizes(bundle: Path) -> dict[str, int]:
        place = bundle / "variants" / "onnxruntime-fp32"
        return {p.parent.name: p.stat().st_size for p in place.glob("*/model.onnx")}

    before, after = sizes(dense / "bundle"), sizes(found / "bundle")
    assert set(before) == {"main", "text_encoder", "decoder"}
    assert all(after[n] < 0.4 * before[n] for n in before), (before, after)


def test_a_packed_bundle_paints_from_the_command_line(slim: Path, tmp_path: Path):
    ran = run_edgekit("bundle", "pack", slim / "bundle", "-o", tmp_path / "pics.ekb")
    assert ran.code == 0, ran.err
    words = ("run", tmp_path / "pics.ekb", "--prompt", PROMPTS[1], "--steps", 3)
    ran = run_edgekit(*words, "--seed", 5, "-o", tmp_path / "one.png")
    assert ran.code == 0, ran.err
    import cv2

    first = cv2.imread(str(tmp_path / "one.png"))
    assert first.shape == (32, 32, 3)
    ran = run_edgekit(*words, "--prompt", "blue four on white", "--seed", 5, "-o", tmp_path / "two", "--json")
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)["pictures"]
    assert [r["seed"] for r in rows] == [5, 6]
    assert (cv2.imread(rows[0]["file"]) == first).all()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--prompt", " "), 2, "is empty"), (("frame.png",), 2, "makes pictures"), ((), 2, "--prompt"),
        (("--prompt", "a", "--steps", "2000"), 2, "steps"), (("--prompt", "a", "--schedule", "euler"), 2, "no schedule"),
        (("--prompt", "a", "--guidance", "-1"), 2, "guidance"), (("--prompt", "a", "--seed", "-1"), 2, "seed"), (("--prompt", "a", "-o", "x.jpg"), 2, "-o"),
    ],
)  # fmt: skip
def test_what_cannot_be_painted_is_told(
    slim: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
):
    import cv2

    cv2.imwrite(str(tmp_path / "frame.png"), np.zeros((32, 32, 3), np.uint8))
    ran = run_edgekit("run", slim / "bundle", *words, cwd=tmp_path)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frame.png"]


@pytest.mark.parametrize("file", ["main/model.onnx", "tokenizer/merges.txt", "diffusion.json"])
def test_one_changed_byte_of_a_part_is_refused(slim: Path, tmp_path: Path, file: str):
    shutil.copytree(slim / "bundle", tmp_path / "bundle")
    path = tmp_path / "bundle" / "variants" / "onnxruntime-fp32" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    ran = run_edgekit(
        "run", tmp_path / "bundle", "--variant", "onnxruntime-fp32", "--prompt", "a", cwd=tmp_path
    )
    assert ran.code == 6, ran.err


def test_a_slimmed_network_is_a_pipelines_network_again(slim: Path, tmp_path: Path):
    shutil.copytree(OWN, tmp_path / "pipe")
    shutil.rmtree(tmp_path / "pipe" / "unet")
    shutil.copytree(slim / "slim-network", tmp_path / "pipe" / "unet")
    pipeline = read_pipeline(tmp_path / "pipe")
    facts = json.loads((slim / "report.json").read_text())["passes"]["slimdiff"]
    network = load_network(pipeline)
    assert sum(p.numel() for p in network.parameters()) == facts["params_after"]


# S10
def test_slimdiff_is_ten_times_nearer_than_magnitude_and_weights_halve_the_error_of_pictures(tmp_path: Path):
    pipeline = read_pipeline(OWN)
    network = load_network(pipeline)
    scene = Scene(
        pipeline=pipeline,
        shape=(4, 8, 8),
        prompts=tuple(PROMPTS[:60]),
        held_out=(),
        schedule="ddim",
        steps=8,
        guidance=3.0,
    )
    states, blank = conditions(scene, PROMPTS[:60])
    base = {
        "pipeline": pipeline,
        "shape": (4, 8, 8),
        "blank": blank,
        "guidance": 3.0,
        "schedule": Schedule(kind="ddim", steps=8, noise=pipeline.noise),
    }
    walk = Walk(wanted=states[:30], seeds=tuple(range(30)), batch=15, **base)
    probe = Walk(wanted=states[:4], seeds=tuple(range(100, 104)), **base)
    held = Walk(wanted=states[30:], seeds=tuple(range(200, 230)), batch=15, **base)
    seen = SeenOnTheWay()
    dense = walked(network, held, seen=seen, record=evenly(4, 8))
    answers = answers_at(network, held, seen, guidance=1.0)
    cache = StepCache(root=tmp_path)
    step, final = {}, {}
    for name, method, allocation in (
        ("magnitude", "magnitude", "uniform"),
        ("uniform", "slimdiff", "uniform"),
        ("full", "slimdiff", "spectral"),
    ):
        how = slimming.Slimming(method=method, allocation=allocation, round_ranks=1, round_neurons=8)
        solution = slimming.solution_of(network, walk, probe, how, keep=cache.step, key={"test": "S10"})
        sizes = slimming.spent(solution, how, 0.587 * solution.total("params"))
        with cut(network, slimming.changes(solution, sizes), solution.moments):
            step[name] = apart(answers_at(network, held, seen, guidance=1.0), answers)
            final[name] = apart(walked(network, held), dense)
    assert step["full"] < 0.002
    assert 10 * step["full"] < step["magnitude"]
    assert 2 * final["full"] <= final["uniform"], final


def test_an_interrupted_pass_goes_on_where_it_stopped(tmp_path: Path):
    pipeline = read_pipeline(OWN)
    network = load_network(pipeline)
    scene = Scene(
        pipeline=pipeline,
        shape=(4, 8, 8),
        prompts=tuple(PROMPTS[:4]),
        held_out=(),
        schedule="ddim",
        steps=2,
        guidance=3.0,
    )
    states, blank = conditions(scene, PROMPTS[:4])
    walk = Walk(
        pipeline=pipeline, shape=(4, 8, 8), wanted=states, blank=blank, guidance=3.0, seeds=tuple(range(4)),
        schedule=Schedule(kind="ddim", steps=2, noise=pipeline.noise),
    )  # fmt: skip
    cache, made = StepCache(root=tmp_path), []

    class StopError(Exception):
        pass

    def keep(name, inputs, make, *, most=1000):
        def counted(folder):
            if len(made) >= most:
                raise StopError
            made.append(name)
            make(folder)

        return cache.step(name, inputs, counted)

    how = slimming.Slimming(memory_mb=0.2)
    with pytest.raises(StopError):
        slimming.solution_of(network, walk, walk, how, keep=lambda *a: keep(*a, most=40), key={})
    first = len(made)
    assert first == 40
    whole = slimming.solution_of(network, walk, walk, how, keep=keep, key={})
    assert made.count("moments") > 3
    assert made.count("slim-probe") == made.count("slim-solved") == len(whole.sites)
    total = len(made)
    again = slimming.solution_of(network, walk, walk, how, keep=keep, key={})
    assert len(made) == total
    assert again.weights == whole.weights


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional transformer of random weights that denoises latents of the shipped decoder."""
    folder = tmp_path_factory.mktemp("dit") / "tiny-dit"
    torch.manual_seed(0)
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=10,
    )  # fmt: skip
    network.save_pretrained(folder / "transformer")
    shutil.copytree(OWN / "vae", folder / "vae")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DiTPipeline", "transformer": ["diffusers", "DiTTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"], "id2label": {str(k): f"thing {k}" for k in range(10)},
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_class_conditional_transformer_is_slimmed_and_paints(dit: Path, tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("\n".join(f"thing {k}" for k in range(10)))
    passes = "slimdiff: {mac_cut: 0.2, prompts: 8, steps: 4, record: 2, probe_prompts: 2, probe: guided}"
    path = pictures.recipe(tmp_path, passes, pipeline=dit)
    path.write_text(path.read_text().replace(f"judge: {OWN / 'judge.onnx'}, judged: 30", "judged: 0"))
    ran = run_edgekit("compile", path, "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    facts = json.loads((tmp_path / "out" / "pics-local" / "report.json").read_text())["passes"]["slimdiff"]
    gone = 1 - facts["gmacs_after"] / facts["gmacs_before"]
    assert gone == pytest.approx(0.2, abs=0.02)
    with edgekit.load(tmp_path / "out" / "pics-local" / "bundle") as model:
        by_name, by_number = model.generate("thing 3", seed=1), model.generate("3", seed=1)
        assert (by_name.images == by_number.images).all()
        with pytest.raises(edgekit.core.errors.RecipeError, match="no such class"):
            model.generate("thing 12")


def test_a_budget_is_found_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The search, with a clock that counts multiply-adds; `scripts/evidence/slimdiff_time.py` does it with a real one."""
    from edgekit.core.digest import digest_file
    from edgekit.core.errors import RecipeError
    from edgekit.core.records import Contract, Graph, Network
    from edgekit.export.diffusion_onnx import network_inputs, network_module, write_part
    from edgekit.graph.cost import cost_of
    from edgekit.graph.onnx_file import inputs_of, outputs_of, read_onnx
    from edgekit.passes import slimdiff
    from edgekit.passes.protocol import Context

    pipeline = read_pipeline(OWN)
    scene = Scene(
        pipeline=pipeline,
        shape=(4, 8, 8),
        prompts=tuple(PROMPTS[:6]),
        held_out=tuple(PROMPTS[6:8]),
        schedule="ddim",
        steps=2,
        guidance=3.0,
    )
    main = tmp_path / "main.onnx"
    write_part(
        network_module(load_network(pipeline), pipeline),
        network_inputs(pipeline, (4, 8, 8), 2),
        "answer",
        main,
        opset=17,
    )
    model = read_onnx(main)
    network = Network(
        graphs={"main": Graph(path=main, sha256=digest_file(main))},
        contract=Contract(inputs=inputs_of(model), outputs=outputs_of(model)),
    )

    def time(candidates):
        # A tenth of the time does not depend on the multiply-adds.
        return [0.1 + cost_of(read_onnx(n.main.path)).gflops for n, _ in candidates]

    (tmp_path / "out").mkdir()
    context = Context(
        out=tmp_path / "out", scene=scene, step=StepCache(root=tmp_path / "cache").step, time=time
    )
    settings = slimdiff.Settings(speedup=1.15, prompts=4, steps=2, probe_prompts=2, allocation="tail")
    change = slimdiff.PLUGIN.run(network, settings, context)
    before, after = time([(network, None), (change.network, None)])
    assert before / after == pytest.approx(1.15, rel=0.05)
    assert len(change.facts["timed"]) < 8
    with pytest.raises(RecipeError, match="cannot be had"):
        slimdiff.PLUGIN.run(
            network, slimdiff.Settings(speedup=10, prompts=4, steps=2, allocation="tail"), context
        )


def test_large_networks_store_half_and_compute_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from edgekit.core.errors import RecipeError
    from edgekit.export import diffusion_onnx

    pipeline = read_pipeline(OWN)
    module = diffusion_onnx.network_module(load_network(pipeline), pipeline)
    inputs = diffusion_onnx.network_inputs(pipeline, (4, 8, 8), 2)
    whole = diffusion_onnx.write_part(module, inputs, "answer", tmp_path / "whole.onnx", opset=17)
    monkeypatch.setattr(diffusion_onnx, "MOST_BYTES", 3_000_000)
    half = diffusion_onnx.write_part(module, inputs, "answer", tmp_path / "half.onnx", opset=17)
    assert half.gflops == pytest.approx(whole.gflops, rel=0.02)  # torch counts the one, ONNX shapes the other
    assert half.params == pytest.approx(whole.params, rel=0.01)
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * (tmp_path / "whole.onnx").stat().st_size
    # Weights that were stored in fp16 for their size go on to int8.
    assert store_int8(restore_half(onnx.load(tmp_path / "half.onnx"))) > 60
    # The shipped weights are float16 already: nothing is lost.
    assert diffusion_onnx.part_parity(module, str(tmp_path / "half.onnx"), inputs, where="half") < 1e-5
    monkeypatch.setattr(diffusion_onnx, "MOST_BYTES", 1_000_000)
    with pytest.raises(RecipeError, match="do not fit"):
        diffusion_onnx.write_part(module, inputs, "answer", tmp_path / "none.onnx", opset=17)
