"""Run a network with onnxruntime's TensorRT or CUDA provider where TensorRT itself builds no engine of it.

onnxruntime hands what a provider refuses to the next one without a word, in the end to the CPU. So what a session
got is compared with what was asked for, and a provider that computes nothing is refused.

Run as `python -m edgekit.backends.providers`: one JSON object on stdin, one on stdout.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.backends.ort_session import CPU, OrtSession, engine_errors, first_line, layers_of
from edgekit.backends.protocol import Arrays, Session
from edgekit.core.errors import ContractError, EdgekitError
from edgekit.core.lazy import have, need
from edgekit.core.records import LayerRun

# Of the time: a provider with less has handed the network over.
_LEAST_OWN = 0.5
TENSORRT, CUDA = "TensorrtExecutionProvider", "CUDAExecutionProvider"


def available() -> tuple[str, ...]:
    """Return the providers that could take over, best first, as far as onnxruntime was compiled with them."""
    if not have("onnxruntime"):
        return ()
    compiled = need("onnxruntime").get_available_providers()
    return tuple(p for p in (TENSORRT, CUDA) if p in compiled)


def opened(model: Path, provider: str, cache: Path, *, half: bool) -> Session:
    """Return a session whose first provider is the one asked for.

    Args:
        model: ONNX file.
        provider: Name, as onnxruntime has it.
        cache: Folder where the provider keeps its own engines and timings.
        half: Whether it may compute in fp16 what the file leaves in float32.

    Raises:
        ContractError: onnxruntime fell back to another, or cannot read the file.
    """
    return OrtSession(_made(model, provider, cache, half=half))


def receipt(model: Path, provider: str, cache: Path, *, half: bool, inputs: Arrays) -> tuple[LayerRun, ...]:
    """Profile a few runs and return each node with the provider that computed it and its share of time."""
    with tempfile.TemporaryDirectory() as folder:
        session = _made(model, provider, cache, half=half, profile=str(Path(folder) / "profile"))
        for _ in range(6):
            session.run(None, dict(inputs))
        return layers_of(json.loads(Path(session.end_profiling()).read_text()))


def _made(model: Path, provider: str, cache: Path, *, half: bool, profile: str = "") -> Any:
    ort = need("onnxruntime", why=f"run {model.name} with {provider}")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    wanted = [(provider, _settings(cache, half=half))] if provider == TENSORRT else [provider]
    rest = [p for p in (CUDA, CPU) if p != provider and p in ort.get_available_providers()]
    try:
        with warnings.catch_warnings():
            # It warns and goes on where a provider is missing; here that is an error.
            warnings.simplefilter("ignore")
            session = ort.InferenceSession(str(model), options, providers=[*wanted, *rest])
    except engine_errors() as error:
        raise ContractError(f"onnxruntime with {provider}: {first_line(error)}") from error
    if session.get_providers()[0] != provider:
        raise ContractError(
            f"onnxruntime fell back to {session.get_providers()[0]}, asked for {provider}",
            hint="Its libraries are missing or of another version; its time would not be TensorRT's.",
        )
    return session


def _settings(cache: Path, *, half: bool) -> dict[str, str]:
    """Return the TensorRT provider's options: half precision where it may, and its own caches."""
    return {
        "trt_fp16_enable": str(int(half)), "trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1", "trt_timing_cache_path": str(cache),
    }  # fmt: skip


def _tried(order: dict[str, Any]) -> dict[str, Any]:
    """Open, run on zeros, and return who computed how much."""
    model, provider, cache = Path(order["model"]), order["provider"], Path(order["cache"])
    cache.mkdir(parents=True, exist_ok=True)
    given = {s["name"]: np.zeros(s["shape"], s["dtype"]) for s in order["inputs"]}
    placed: dict[str, float] = {}
    for one in receipt(model, provider, cache, half=bool(order["half"]), inputs=given):
        placed[one.unit] = placed.get(one.unit, 0.0) + one.share
    own = placed.get("CPU" if provider == CPU else provider, 0.0)
    if own < _LEAST_OWN:
        return {"error": f"only {own:.0%} of the time is spent in it, the rest elsewhere"}
    placed = {unit: round(share, 3) for unit, share in placed.items()}
    return {"placed": placed, "own": own, "onnxruntime": need("onnxruntime").__version__}


def main() -> None:
    """Try what stdin names."""
    try:
        said = _tried(json.load(sys.stdin))
    except EdgekitError as error:
        said = {"error": error.message}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
