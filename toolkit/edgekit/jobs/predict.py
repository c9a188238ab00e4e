"""Answer `edgekit predict`: resolve model, device and engine, then ask the predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.devices.power import peak_in
from edgekit.devices.profiles import profile_of
from edgekit.graph.cost import cost_of
from edgekit.graph.half import restore_half
from edgekit.graph.onnx_file import inputs_of, read_onnx
from edgekit.graph.static import fix_shapes
from edgekit.models.find import shipped_models
from edgekit.predict.latency import Question, known_models, predict, refuse_unknown, size_of_model
from edgekit.predict.rows import Size


def predicted(
    model: str,
    *,
    device: str,
    backend: str = "",
    precision: str = "fp32",
    imgsz: int = 0,
    software: str = "",
    power: str = "",
) -> dict[str, Any]:
    """Return a prediction with its band, basis and nearest row.

    Args:
        model: A YOLO of the published rows, a shipped model, or an ONNX file.
        device: A profile or a row's word for a device.
        backend: An engine in edgekit's or a row's words; the device's first where empty.
        precision: As a row words it.
        imgsz: Image side in pixels; 640, or an ONNX file's own, where 0.
        software: Edition as a row words it.
        power: Power mode of the device's profile, or as a row words it.

    Raises:
        RecipeError: Something is unknown; the message says which fact is missing.
    """
    profile = profile_of(device)
    engine = backend or next(iter(profile.backends))
    refuse_unknown(backend=engine, precision=precision, software=software)
    # A row's "name (npu)" says which unit was used; a profile's name is turned into the rows' one.
    asked = f"{profile.published} ({device.partition('(')[2]}" if "(" in device else profile.published
    size, name, side = _size(model, imgsz)
    found = predict(
        Question(
            device=asked,
            backend=engine,
            precision=precision,
            size=size,
            model=name,
            software=software,
            power=power,
            peak=peak_in(profile, power),
        )
    )
    facts = {"ms": found.ms, "low_ms": found.low_ms, "high_ms": found.high_ms}
    return {
        **{k: round(v, 3) for k, v in facts.items()}, "kind": "predicted", "basis": found.basis,
        "nearest": found.nearest, "model": model, "device": profile.name, "backend": engine, "precision": precision,
        "imgsz": side, "gflops": round(size.gflops, 3),
    }  # fmt: skip


def _size(model: str, imgsz: int) -> tuple[Size, str, int]:
    """Return what one inference takes, the catalogue name where it is one, and the image side."""
    if imgsz and not 32 <= imgsz <= 4096:
        raise RecipeError(f"--imgsz: {imgsz} is not 32 to 4096 pixels", hint="Take 640.")
    ours = shipped_models()
    if model in known_models() or (not model.endswith(".onnx") and model not in ours):
        return size_of_model(model, imgsz or 640), model, imgsz or 640
    path = ours.get(model) or Path(model)
    graph = fix_shapes(restore_half(read_onnx(path)), imgsz=imgsz, where=path.name)
    cost = cost_of(graph)
    known = next((n for n in known_models() if n in path.stem), "")
    return (
        Size(gflops=cost.gflops, activations_m=cost.activations / 1e6),
        known,
        inputs_of(graph)[0].shape[-1],
    )
