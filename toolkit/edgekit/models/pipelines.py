"""Diffusion pipelines: read what a diffusers folder holds without loading it, and load its parts."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.digest import digest_file, digest_value
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.core.places import shipped
from edgekit.core.plugins import suggestion
from edgekit.plans.schedules import Noise, noise_from

INDEX = "model_index.json"
# Networks that predict noise, with the word for them.
_NETWORKS = {"UNet2DConditionModel": "unet", "DiTTransformer2DModel": "transformer"}
_TEXT, _DECODER = "CLIPTextModel", "AutoencoderKL"
# Components that change nothing of the pictures; any other one may.
_BESIDE = frozenset(
    {
        "unet",
        "transformer",
        "vae",
        "text_encoder",
        "tokenizer",
        "scheduler",
        "safety_checker",
        "feature_extractor",
    }
)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A diffusers pipeline in a folder.

    Attributes:
        what: How a person calls it.
        folder: Where it lies.
        network: Component that predicts noise: "unet" or "transformer".
        kind: Its class.
        conditions: "text" or "class".
        latents: Channels of what is denoised.
        side: Of it, in its own pixels, as trained.
        factor: Pixels of the image for one of the latents; 1 where it denoises pixels.
        noise: How it was trained.
        decodes: Whether a decoder makes pixels of latents.
        length: Tokens of a prompt.
        pad: Token that fills a prompt up.
        width: Of a token's state.
        labels: Names of the classes.
        blank: Class that stands for none; -1 where there is none.
        sha256: Over all files that matter.
    """

    what: str
    folder: Path
    network: str
    kind: str
    conditions: str
    latents: int
    side: int
    factor: int
    noise: Noise
    decodes: bool = False
    length: int = 0
    pad: str = ""
    width: int = 0
    labels: tuple[str, ...] = ()
    blank: int = -1
    sha256: str = ""


def shipped_pipelines() -> dict[str, Path]:
    """Return the pipelines that come with edgekit, by name."""
    return {p.parent.name: p.parent for p in sorted(shipped("models").glob(f"*/{INDEX}"))}


def find_pipeline(given: str, *, beside: Path) -> Path:
    """Return the folder of a pipeline: a shipped one's, a folder, or what the hub gives for `owner/name`.

    Args:
        given: Name, path relative to `beside`, or hub name.
        beside: Folder of the recipe.

    Raises:
        RecipeError: There is none.
    """
    if given in shipped_pipelines():
        return shipped_pipelines()[given]
    folder = beside / given
    if folder.is_dir():
        return folder
    if len(Path(given).parts) == 2 and not given.startswith((".", "/")):
        return _from_hub(given, folder)
    raise RecipeError(
        f"model.pipeline: {folder}: no such folder", hint=suggestion(given, shipped_pipelines())
    )


def _from_hub(name: str, folder: Path) -> Path:
    diffusers = need("diffusers", extra="diffusion", why=f"fetch {name}")
    try:
        return Path(diffusers.DiffusionPipeline.download(name, use_safetensors=True))
    # The hub's own errors are many, and of several packages.
    except Exception as error:
        raise RecipeError(
            f"model.pipeline: {folder}: no such folder, and the hub gives no {name!r} ({type(error).__name__})",
            hint="Give the path of a pipeline's folder, or run with a network once.",
        ) from error


def read_pipeline(folder: Path, *, what: str = "") -> Pipeline:
    """Return what a pipeline's folder says of itself.

    Raises:
        RecipeError: A file is missing or damaged, or it is of a kind that is not known here.
    """
    index = _json(folder / INDEX, hint="Give a folder that diffusers' save_pretrained wrote.")
    named = {k: v[1] for k, v in index.items() if isinstance(v, list) and len(v) == 2 and v[1]}
    network = next((k for k in ("unet", "transformer") if k in named), "")
    kind = named.get(network, "")
    if kind not in _NETWORKS:
        raise RecipeError(
            f"{folder}: its network is {kind or 'missing'}", hint=f"Known are: {', '.join(_NETWORKS)}."
        )
    if named.get("vae", _DECODER) != _DECODER:
        raise RecipeError(f"{folder}: its decoder is {named['vae']}", hint=f"Known is {_DECODER}.")
    if further := sorted(set(named) - _BESIDE):
        raise RecipeError(
            f"{folder}: has a {further[0]}, which is not known here", hint="Save the pipeline without it."
        )
    try:
        return _read(folder, index, named, what or folder.name)
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{folder}: a configuration is damaged ({error!r})", hint="Save the pipeline whole."
        ) from error


def _read(folder: Path, index: Mapping[str, Any], named: Mapping[str, str], what: str) -> Pipeline:
    network = "unet" if "unet" in named else "transformer"
    config = _json(folder / network / "config.json")
    vae = _json(folder / "vae" / "config.json") if "vae" in named else {}
    _refuse_strange(folder / network / "config.json", config, vae, text="text_encoder" in named)
    text = named[network] == "UNet2DConditionModel" and not config.get("num_class_embeds")
    return Pipeline(
        what=what, folder=folder, network=network, kind=named[network], conditions="text" if text else "class",
        latents=int(config["in_channels"]), side=int(config.get("sample_size") or 64), decodes=bool(vae),
        factor=2 ** (len(vae["block_out_channels"]) - 1) if vae else 1,
        noise=noise_from(_json(folder / "scheduler" / "scheduler_config.json"), where=str(folder / "scheduler")),
        sha256=digest_value({p.relative_to(folder).as_posix(): _digest(p, p.stat().st_size, p.stat().st_mtime_ns) for p in _files(folder, named)}),
        **(_text(folder, named, config) if text else _classes(index, config)),
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    """Return a file's digest; gigabytes of weights are read once a run, not each time somebody asks what they are."""
    del size, changed_ns
    return digest_file(path)


def _refuse_strange(path: Path, config: Mapping[str, Any], vae: Mapping[str, Any], *, text: bool) -> None:
    """Refuse networks that take more than latents, a step, and text or a class."""
    channels, wanted = config["in_channels"], (vae["latent_channels"],) if vae else (1, 3)
    if channels not in wanted:
        raise RecipeError(
            f"{path}: in_channels: {channels}, known are {' and '.join(map(str, wanted))}: the network takes more than latents",
            hint="Pipelines that edit or enlarge pictures are not known here.",
        )
    if config.get("num_class_embeds") and text:
        raise RecipeError(f"{path}: num_class_embeds: takes a class and text", hint="One of both is known.")
    for key, meant in (
        ("addition_embed_type", None), ("encoder_hid_dim_type", None), ("time_cond_proj_dim", None), ("class_embed_type", None),
    ):  # fmt: skip
        if config.get(key, meant) != meant:
            raise RecipeError(
                f"{path}: {key}: {config[key]!r}: takes a further input that is not known here",
                hint="Known are networks that take latents, a step, and a prompt or a class.",
            )


def _text(folder: Path, named: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Any]:
    if named.get("text_encoder") != _TEXT:
        found = named.get("text_encoder", "missing")
        raise RecipeError(
            f"{folder / INDEX}: the network takes text, and text_encoder is {found}",
            hint=f"Known is {_TEXT}; save the pipeline whole.",
        )
    encoder = _json(folder / "text_encoder" / "config.json")
    width = encoder["hidden_size"]
    if width != config.get("cross_attention_dim"):
        raise RecipeError(
            f"{folder}: the text encoder gives {width} values a token, the network takes {config.get('cross_attention_dim')}",
            hint="The folder holds parts of two models.",
        )
    tokens = _json(folder / "tokenizer" / "tokenizer_config.json")
    pad = tokens.get("pad_token", "<|endoftext|>")
    length = min(int(tokens.get("model_max_length", 77)), int(encoder.get("max_position_embeddings", 77)))
    return {"length": length, "pad": pad["content"] if isinstance(pad, dict) else pad, "width": int(width)}


def _classes(index: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    count = int(config.get("num_class_embeds") or config.get("num_embeds_ada_norm") or 0)
    said = index.get("id2label") or {}
    labels = tuple(str(said.get(str(k), k)) for k in range(count))
    # DiT keeps one more row than it has classes, which stands for none.
    blank = count if config.get("_class_name") == "DiTTransformer2DModel" else -1
    return {"labels": labels, "blank": blank}


def _files(folder: Path, named: Mapping[str, str]) -> list[Path]:
    kinds = (".json", ".safetensors", ".txt")
    return [folder / INDEX, *sorted(p for n in named for p in (folder / n).rglob("*") if p.suffix in kinds)]


def _json(path: Path, *, hint: str = "Save the pipeline whole.") -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})", hint=hint) from error
    except ValueError as error:
        raise RecipeError(f"{path}: is no JSON ({error})", hint=hint) from error
    if not isinstance(found, dict):
        raise RecipeError(f"{path}: is no JSON object", hint=hint)
    return found


def load_network(pipeline: Pipeline) -> Any:
    """Return the network that predicts noise, float32, with what a `slim.json` beside it says."""
    from edgekit.models.slim_network import FILE, load_slim

    place = pipeline.folder / pipeline.network
    if (place / FILE).exists():
        return load_slim(place)
    return load_part(pipeline, pipeline.network)


def load_part(pipeline: Pipeline, name: str) -> Any:
    """Return one component as a torch module, float32, in eval mode.

    Raises:
        RecipeError: Its weights are missing, damaged, or a pickle.
    """
    torch = need("torch", extra="diffusion")
    package = "transformers" if name == "text_encoder" else "diffusers"
    kind = {"text_encoder": _TEXT, "vae": _DECODER}.get(name, pipeline.kind)
    library = need(package, extra="diffusion", why=f"load {pipeline.what}")
    library.logging.disable_progress_bar()
    module = getattr(library, kind)
    more = {} if package == "transformers" else {"low_cpu_mem_usage": False}
    dtype = {"dtype" if package == "transformers" else "torch_dtype": torch.float32}
    try:
        made = module.from_pretrained(
            pipeline.folder / name, use_safetensors=True, local_files_only=True, **dtype, **more
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise RecipeError(
            f"{pipeline.folder / name}: cannot be loaded ({first})",
            hint="edgekit loads safetensors alone; save the pipeline whole, with safe_serialization.",
        ) from error
    return made.eval().requires_grad_(requires_grad=False)


def answer(network: Any, pipeline: Pipeline, x: NDArray[np.float32], t: int, condition: NDArray[Any]) -> Any:
    """Return the network's answer in torch, numpy in and out.

    Args:
        network: As loaded.
        pipeline: What it belongs to.
        x: Latents (N, C, h, w).
        t: Training step.
        condition: Text states (N, tokens, width), or classes (N,).
    """
    torch = need("torch", extra="diffusion")
    with torch.inference_mode():
        found = called(
            network, pipeline, torch.from_numpy(x), torch.full((1,), float(t)), torch.from_numpy(condition)
        )
    return found.numpy()


def called(network: Any, pipeline: Pipeline, x: Any, t: Any, condition: Any) -> Any:
    """Return the network's answer as a tensor (N, C, h, w); variances that it may learn beside it are left out."""
    steps = t.expand(x.shape[0])
    if pipeline.network == "transformer":
        found = network(x, timestep=steps, class_labels=condition).sample
    elif pipeline.conditions == "class":
        found = network(x, steps, encoder_hidden_states=None, class_labels=condition).sample
    else:
        found = network(x, steps, encoder_hidden_states=condition).sample
    return found[:, : pipeline.latents]


def text_states(encoder: Any, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the states of prompts, (N, tokens, width)."""
    torch = need("torch", extra="diffusion")
    with torch.inference_mode():
        found: NDArray[np.float32] = encoder(torch.from_numpy(ids)).last_hidden_state.numpy()
    return found
