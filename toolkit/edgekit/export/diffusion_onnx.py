"""Export the parts of a diffusion pipeline to ONNX: text encoder, network, decoder; static shapes, float32, with parity."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.errors import ContractError, RecipeError
from edgekit.core.lazy import need
from edgekit.export.torch_onnx import trace, within
from edgekit.graph.cost import Cost, cost_of
from edgekit.graph.half import store_half
from edgekit.graph.onnx_file import save_onnx
from edgekit.graph.static import slim
from edgekit.graph.walk import name_nodes
from edgekit.models.pipelines import Pipeline, called

# A file ends at 2 GiB; graph and names take some of it.
MOST_BYTES = 2**31 - 2**24


def network_module(network: Any, pipeline: Pipeline) -> Any:
    """Return the network as a torch module of (sample, timestep, condition)."""
    torch = need("torch", extra="diffusion")

    class Network(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, sample: Any, timestep: Any, condition: Any) -> Any:
            return called(self.network, pipeline, sample, timestep, condition)

    return Network().eval()


def text_module(encoder: Any) -> Any:
    """Return a text encoder as a torch module of ids."""
    torch = need("torch", extra="diffusion")

    class States(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: Any) -> Any:
            return self.encoder(ids).last_hidden_state

    return States().eval()


def decoder_module(vae: Any) -> Any:
    """Return a decoder as a torch module of latents as the network has them; gives pixels from 0 to 1, (N, 3, H, W)."""
    torch = need("torch", extra="diffusion")
    scale, shift = float(vae.config.scaling_factor), float(vae.config.get("shift_factor") or 0.0)

    class Decoder(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, latents: Any) -> Any:
            pixels = self.vae.decode(latents / scale + shift, return_dict=False)[0]
            return (pixels / 2 + 0.5).clamp(0, 1)

    return Decoder().eval()


def network_inputs(pipeline: Pipeline, shape: Sequence[int], batch: int) -> dict[str, Any]:
    """Return example inputs of the network.

    Args:
        pipeline: Of it.
        shape: Of a latent, (C, h, w).
        batch: Latents at a time: 2 where guidance asks with and without a prompt.
    """
    torch = need("torch", extra="diffusion")
    rng = torch.Generator().manual_seed(0)
    condition = (
        torch.randn(batch, pipeline.length, pipeline.width, generator=rng)
        if pipeline.conditions == "text"
        else torch.zeros(batch, dtype=torch.int64)
    )
    return {
        "sample": torch.randn(batch, *shape, generator=rng),
        "timestep": torch.full((1,), 500.0),
        "condition": condition,
    }


def write_part(module: Any, inputs: Mapping[str, Any], output: str, path: Path, *, opset: int) -> Cost:
    """Write a part as one ONNX file with simplified graph and named nodes; return what it costs.

    A part whose float32 weights would make a file above 2 GiB, where protobuf ends, stores them in float16 and computes in
    float32; it is not simplified, the engines do that when they open it.

    Args:
        module: In torch.
        inputs: Examples by name, in the module's order.
        output: Name of its one output.
        path: Of the file.
        opset: Of ONNX.

    Raises:
        RecipeError: It is too large even so.
    """
    count = sum(p.numel() for p in module.parameters())
    if count * 4 <= MOST_BYTES:
        model = slim(part_to_onnx(module, inputs, output, opset=opset), where=path.stem)
    elif count * 2 <= MOST_BYTES:
        return _write_half(module, inputs, output, path, opset=opset)
    else:
        raise RecipeError(
            f"{path.stem}: {count / 1e6:.0f} M parameters do not fit into one ONNX file, not in float16 either",
            hint=f"At most {MOST_BYTES // 2 / 1e6:.0f} M do.",
        )
    name_nodes(model.graph)
    save_onnx(model, path)
    return cost_of(model)


def part_to_onnx(module: Any, inputs: Mapping[str, Any], output: str, *, opset: int) -> Any:
    """Return the ModelProto of a part traced on these inputs; its one output has the name `output`."""
    onnx, buffer = need("onnx", extra="host"), io.BytesIO()
    trace(module, inputs, [output], buffer, opset=opset)
    return onnx.load_from_string(buffer.getvalue())


def _write_half(module: Any, inputs: Mapping[str, Any], output: str, path: Path, *, opset: int) -> Cost:
    """Write a part with float16 weights behind Casts; the tracer puts weights beside its file, one by one."""
    onnx, torch = need("onnx", extra="host"), need("torch", extra="diffusion")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "traced.onnx"
        trace(module, inputs, [output], str(file), opset=opset)
        model = store_half(onnx.load(str(file)), in_place=True)
    name_nodes(model.graph)
    save_onnx(model, path)
    # Shapes of a graph that was not simplified are not all known; torch counts what it runs, fused attention left out.
    attention, counter = (
        need("torch.nn.attention"),
        need("torch.utils.flop_counter").FlopCounterMode(display=False),
    )
    with torch.no_grad(), attention.sdpa_kernel(attention.SDPBackend.MATH), counter:
        module(*inputs.values())
    return replace(cost_of(model), gflops=counter.get_total_flops() / 1e9)


def part_parity(module: Any, path: str, inputs: Mapping[str, Any], *, where: str) -> float:
    """Return the largest error of a part's file against torch, relative to the largest output.

    Raises:
        ContractError: It is above 1e-3, or the part gives values that are not finite.
    """
    torch, ort = need("torch", extra="diffusion"), need("onnxruntime", extra="host")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = module(*inputs.values()).numpy()
    if not np.isfinite(wanted).all():
        raise ContractError(
            f"{where}: what it gives is not finite",
            hint="Look for NaN or infinity in its weights; save them again.",
        )
    known = {i.name for i in session.get_inputs()}
    found = session.run(None, {n: v.numpy() for n, v in inputs.items() if n in known})[0]
    error = float(np.abs(found - wanted).max()) / max(float(np.abs(wanted).max()), 1e-12)
    return within(error, where=where)
