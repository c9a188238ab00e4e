"""Keep a slimmed network: its weights, and a `slim.json` from which its shapes are built before they are loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.files import write_bytes, write_json
from edgekit.core.lazy import need

FILE, WEIGHTS = "slim.json", "diffusion_pytorch_model.safetensors"
SCHEMA = "edgekit/slim/v1"


def save_slim(network: Any, folder: Path, *, facts: Mapping[str, Any], half: bool = False) -> None:
    """Write `config.json`, `slim.json` and the weights of a network whose layers were cut.

    Args:
        network: A diffusers model with cut layers.
        folder: An empty one.
        facts: Of how it came to be; `per_module` maps a module's path to its sizes.
        half: Write float16.
    """
    tensors = need("safetensors.torch", extra="diffusion")
    torch = need("torch", extra="diffusion")
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(torch.float16) if half else v for k, v in network.state_dict().items()}
    write_bytes(folder / WEIGHTS, tensors.save({k: v.contiguous() for k, v in state.items()}))
    config = {k: v for k, v in network.config.items() if not k.startswith("_")}
    write_json(folder / "config.json", {**config, "_class_name": type(network).__name__})
    write_json(folder / FILE, {"schema": SCHEMA, **facts})


def load_slim(folder: Path) -> Any:
    """Return the network that a folder of `save_slim` holds, float32, in eval mode.

    Raises:
        RecipeError: A file is missing or they do not belong together.
    """
    torch = need("torch", extra="diffusion")
    tensors = need("safetensors.torch", extra="diffusion")
    diffusers = need("diffusers", extra="diffusion")
    try:
        said = json.loads((folder / FILE).read_text())
        config = json.loads((folder / "config.json").read_text())
        with torch.device("meta"):
            network = getattr(diffusers, config["_class_name"]).from_config(config)
        reshape(network, said["per_module"])
        state = {k: v.float() for k, v in tensors.load_file(folder / WEIGHTS).items()}
        network.load_state_dict(state, assign=True)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise RecipeError(
            f"{folder}: no slimmed network is there ({first})",
            hint="Take the folder that the pass wrote, whole.",
        ) from error
    return network.eval().requires_grad_(requires_grad=False)


def reshape(network: Any, per_module: Mapping[str, Mapping[str, int]]) -> None:
    """Give layers the sizes that `per_module` names, without their values.

    Args:
        network: As its configuration builds it.
        per_module: Path to sizes: `qk_rank`, `vo_rank`, `ff_width`.
    """
    from edgekit.models.slim_layers import shaped_attention, shaped_feed_forward

    for path, sizes in per_module.items():
        module = network.get_submodule(path)
        if "ff_width" in sizes:
            made = shaped_feed_forward(module, sizes["ff_width"])
        else:
            made = shaped_attention(module, sizes.get("qk_rank", 0), sizes.get("vo_rank", 0))
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, made)
