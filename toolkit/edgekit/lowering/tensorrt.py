"""Lower a network to what a TensorRT engine is built from on the device, in the dialect of its version."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from edgekit.backends import build_engine
from edgekit.calibration.layers import choices
from edgekit.core.digest import digest_file, plain
from edgekit.core.errors import ContractError, RecipeError
from edgekit.core.files import write_json, write_text
from edgekit.core.records import Artifact, Network, QuantPlan
from edgekit.devices.jetpacks import Target
from edgekit.graph.int8_weights import restore_int8
from edgekit.graph.onnx_file import read_onnx, save_onnx
from edgekit.graph.sparsity import sparse_layers
from edgekit.graph.strong import strongly_typed
from edgekit.lowering.protocol import Lowering, Options
from edgekit.lowering.trt_dialects import Written, write
from edgekit.lowering.trt_lint import ERROR, lint
from edgekit.lowering.trt_rewrites import own_inputs

SCHEMA = "edgekit/build/v1"
MODEL, TWIN, BUILD = "model.onnx", "fp16.onnx", "build.json"
# Kernels are timed at the builder's usual level; 5 on request takes several times as long.
_LEVEL, _WORKSPACE_MB = 3, 2048
# First compute capability with sparse tensor cores.
_SPARSE_FROM = 8.0
# Protobuf ends at 2 GiB; the graph takes some of it.
_MOST_BYTES = 2**31 - 2**24


class TensorRtLowering:
    """The ONNX file in its dialect, an fp16 twin beside int8, and `build.json`; never an engine."""

    precisions = ("fp32", "fp16", "int8")
    styles = ("",)

    def lower(self, network: Network, plan: QuantPlan | None, options: Options, out: Path) -> Artifact:
        """Write the files of one precision and return the artifact.

        Raises:
            RecipeError: int8 without a plan, or an opset that this version of TensorRT does not read.
            ContractError: The file has what this version of TensorRT refuses; the findings are named.
        """
        assert options.target, "a TensorRT file is written for one version"
        target, model = options.target, _plain(network)
        parts = {MODEL: (options.precision, write(model, plan, options.precision, target))}
        if options.precision == "int8":
            # Where int8 fails on the device, this one is built instead.
            parts[TWIN] = ("fp16", write(model, None, "fp16", target))
        builds = [_part(out, name, precision, one, target) for name, (precision, one) in parts.items()]
        wanted = wanted_of(model, plan, options.precision)
        build = {
            "schema": SCHEMA, "engine": "build-on-device", "target": plain(target), "builds": builds, "wanted": wanted,
            "inputs": plain(network.contract.inputs), "outputs": plain(network.contract.outputs), **options.wishes,
        }  # fmt: skip
        write_json(out / BUILD, build)
        # A board without edgekit builds with this file alone.
        shutil.copyfile(build_engine.__file__, out / "build_engine.py")
        return Artifact(
            backend="tensorrt", precision=options.precision, main=out / MODEL, contract=network.contract, wanted=wanted,
        )  # fmt: skip


def _plain(network: Network) -> Any:
    """Return the graph with weights in float32: the builder has its own types, and reads no int8 constants but behind Q/DQ."""
    model = restore_int8(read_onnx(network.main.path))
    size = sum(i.ByteSize() for i in model.graph.initializer)
    if size > _MOST_BYTES:
        raise RecipeError(
            f"passes.quantize-weights: TensorRT is given weights in float32, and these {size / 1e9:.1f} GB do not fit into one file",
            hint="Leave quantize-weights out for this device.",
        )
    return model


def wanted_of(model: Any, plan: QuantPlan | None, precision: str) -> dict[str, str]:
    """Return the layers with weights that shall run below float32, with their type."""
    if precision == "fp32":
        return {}
    int8 = plan.int8_layers() if plan and precision == "int8" else frozenset()
    return {c.name: "int8" if c.name in int8 else "fp16" for c in choices(model)}


def _part(out: Path, name: str, precision: str, one: Written, target: Target) -> dict[str, Any]:
    """Write one file and its texts; return its entry of build.json."""
    save_onnx(one.model, out / name)
    for text_name, text in one.texts.items():
        write_text(out / text_name, text)
    faults = [f for f in lint(one.model, target) if f.severity == ERROR]
    if faults:
        words = "; ".join(f"{f.node}: {f.what}" for f in faults[:3])
        raise ContractError(
            f"{len(faults)} findings that TensorRT {target.tensorrt} refuses in the {precision} file: {words}",
            hint=faults[0].todo,
        )
    return {
        "model": name, "sha256": digest_file(out / name), "precision": precision, "builder_level": _LEVEL,
        "workspace_mb": _WORKSPACE_MB, **_sparse(one.model, target), **one.options,
    }  # fmt: skip


def _sparse(model: Any, target: Target) -> dict[str, Any]:
    """Return the option that allows sparse kernels, where layers have the pattern and the GPU can use it."""
    capable = float(target.compute_capability or 0) >= _SPARSE_FROM
    return {"sparse": True} if capable and sparse_layers(model) else {}


def stand_in(network: Network, plan: QuantPlan | None, options: Options, out: Path) -> Artifact:
    """Write what onnxruntime runs in the engine's place on a host: the same graph, other kernels.

    Where flags choose fp16 (weak typing), it is the graph with fp16 written into it; where scales lie in a
    calibration cache, the one with Q/DQ.
    """
    assert options.target
    model = _plain(network)
    if options.precision == "fp16":
        judged = strongly_typed(model)
    else:
        one = write(model, plan, options.precision, options.target)
        judged = one.judged or one.model
    save_onnx(own_inputs(judged, network.contract.inputs), out / MODEL)
    return Artifact(
        backend="onnxruntime", precision=options.precision, main=out / MODEL, contract=network.contract,
        options={"qdq_as_written": options.precision == "int8"},
    )  # fmt: skip


PLUGIN: Lowering = TensorRtLowering()
