"""Check a TensorRT file on the host as far as that goes: rules, another TensorRT's parser and builder, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.core import versions
from edgekit.core.digest import digest_file
from edgekit.core.errors import ContractError
from edgekit.core.outcome import Check
from edgekit.forms.stored import restore, store
from edgekit.graph.onnx_file import read_onnx
from edgekit.jobs.ask import Ask
from edgekit.jobs.trial import outputs_error
from edgekit.jobs.variants import Lowered, Networks, stand_in
from edgekit.lowering.trt_lint import lint
from edgekit.lowering.trt_rtx import DOES_NOT_PROVE, Accepted, asked

# Of the largest value of an output: what fp16 may cost. int8 is judged by its accuracy.
_LIMITS = {"fp32": 1e-3, "fp16": 0.02}


def parity_of(ask: Ask, networks: Networks, one: Lowered, files: Sequence[Path]) -> float:
    """Return how far the file's outputs are from the float32 network's, both in onnxruntime.

    Raises:
        ContractError: Further than its precision explains.
    """
    own, plain = stand_in(ask, networks, one.wanted), _float32(networks, one)
    error = outputs_error(ask, plain, own, files)
    limit = _LIMITS.get(one.wanted.precision)
    if limit is not None and not error <= limit:
        raise ContractError(
            f"{one.wanted.plain}: its file gives outputs {error:.2e} of the largest value away from float32's, {limit:g} is allowed",
            hint="A value may leave fp16's range: take --precision fp32, or report the model.",
        )
    return error


def _float32(networks: Networks, one: Lowered) -> Lowered:
    graph = networks.float32.main
    wanted = replace(one.wanted, backend="onnxruntime", precision="fp32")
    artifact = replace(one.artifact, backend="onnxruntime", precision="fp32", main=graph.path, wanted={})
    return Lowered(wanted=wanted, artifact=artifact, digest=graph.sha256, size_mb=0.0)


def checks_of(ask: Ask, one: Lowered) -> tuple[Check, ...]:
    """Return what rules, and TensorRT for RTX where it is installed, say of every ONNX file of a variant."""
    assert ask.target
    found = []
    for path in sorted(one.artifact.folder.glob("*.onnx")):
        said = lint(read_onnx(path), ask.target)
        warned = [f for f in said if f.severity == "warning"]
        words = "; ".join(f"{f.rule} at {f.node}" for f in warned[:3])
        more = f" and {len(warned) - 3} more" if len(warned) > 3 else ""
        found.append(
            Check(
                name=f"lint {path.name}",
                state="warn" if warned else "pass",
                by=f"edgekit's rules for TensorRT {ask.target.tensorrt}",
                detail=words + more,
            )
        )
        found.append(_rtx(ask, path))
    return tuple(found)


def _rtx(ask: Ask, path: Path) -> Check:
    inputs = {"file": digest_file(path), "code": versions.code(), "tools": versions.versions("tensorrt_rtx")}

    def make(folder: Path) -> None:
        store(folder / "said.json", asked(path))

    said = restore(ask.cache.step("rtx", inputs, make) / "said.json", Accepted)
    detail = said.words if said.state != "accepted" else f"does not prove: {DOES_NOT_PROVE}"
    return Check(
        name=f"parse and build {path.name}",
        state=said.state,
        by=f"TensorRT-RTX {said.version}".strip(),
        detail=detail,
    )
