"""Read what TensorRT's engine inspector and profiler tell: each layer's precision, unit and share of time.

Two ways of writing are known: sentences ("Thirty-two wide channel vectorized row major Int8 format", up to 8.6)
and words ("Int8", "Half", later). `Bindings` became `I/O Tensors` in 11; neither is needed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from edgekit.core.errors import ContractError
from edgekit.core.records import LayerRun

_WORDS = (
    ("int8", "int8"), ("fp8", "fp8"), ("int4", "int4"), ("bf16", "bf16"), ("bfloat", "bf16"), ("fp16", "fp16"), ("half", "fp16"),
    ("fp32", "fp32"), ("float", "fp32"), ("int32", "int32"), ("int64", "int64"), ("bool", "bool"),
)  # fmt: skip
# Moves data between formats and does nothing else.
REFORMATS = frozenset({"Reformat", "NoOp", "Shuffle copy"})
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


def layers_of(text: str, times_ms: Mapping[str, float]) -> tuple[LayerRun, ...]:
    """Return each layer as it ran.

    Args:
        text: JSON of the inspector for a whole engine, built with detailed verbosity.
        times_ms: Time of each layer by name, as the profiler has it.

    Raises:
        ContractError: The engine was built without layer details, or no time belongs to any of its layers.
    """
    try:
        found = json.loads(text)
        layers = found["Layers"] if isinstance(found, dict) else found
    except (ValueError, KeyError) as error:
        raise ContractError(
            f"the engine's inspector gives no layers ({error})", hint="Build the engine again."
        ) from None
    if not layers or isinstance(layers[0], str):
        raise ContractError(
            "the engine was built without layer details", hint="Build it again: `edgekit engine build`."
        )
    total = sum(times_ms.get(str(one["Name"]), 0.0) for one in layers)
    if total <= 0:
        raise ContractError("the profiler names none of the engine's layers", hint="Build the engine again.")
    return tuple(_one(one, times_ms.get(str(one["Name"]), 0.0) / total) for one in layers)


def _one(layer: Mapping[str, Any], share: float) -> LayerRun:
    kind = str(layer.get("LayerType", "?"))
    name = str(layer["Name"])
    return LayerRun(
        name=name, op=kind, dtype=_dtype(layer), unit="DLA" if kind == "DLA" else "GPU", share=share,
        covers=_covers(name, str(layer.get("Metadata") or "")),
    )  # fmt: skip


def dtype_word(text: str) -> str:
    """Return fp16, int8 and so on for what the inspector writes of a tensor, "?" where it is unknown."""
    low = text.lower()
    return next((word for sign, word in _WORDS if sign in low), "?")


def _dtype(layer: Mapping[str, Any]) -> str:
    """Return what a layer computes in: the type it reads; its weights tell where they are named."""
    given = _types(layer.get("Inputs", ()))
    weights = layer.get("Weights")
    stored = dtype_word(str(weights.get("Type", ""))) if isinstance(weights, dict) else "?"
    if given and given[0] == "int8" and stored in {"int8", "?"}:
        return "int8"
    if stored in {"fp16", "fp32", "bf16"}:
        # A layer with a wider type on either side computes in it.
        return "fp32" if "fp32" in {stored, *given[:1]} else stored
    return given[0] if given else (_types(layer.get("Outputs", ())) or ["?"])[0]


def _types(tensors: Iterable[Mapping[str, Any]]) -> list[str]:
    return [dtype_word(str(t.get("Format/Datatype", t.get("Datatype", "")))) for t in tensors]


def _covers(name: str, metadata: str) -> tuple[str, ...]:
    """Return the ONNX nodes that a layer stands for: from its metadata, before 8.6 from its name."""
    if told := _ONNX.findall(metadata):
        return tuple(dict.fromkeys(told))
    parts = re.split(r"\s+\+\s+|,\s*", name)
    bare = (
        re.sub(r"^(PWN|fused|Reformatting CopyNode for .* (to|from))?\s*[({\[]*|[)}\]]*$", "", p).strip()
        for p in parts
    )
    return tuple(dict.fromkeys(b for b in bare if b))


def reformat_share(layers: Iterable[LayerRun]) -> float:
    """Return the share of time that went into copies between formats."""
    return sum(
        one.share for one in layers if one.op in REFORMATS or one.name.startswith("Reformatting CopyNode")
    )
