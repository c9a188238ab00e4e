"""Lower a network to ONNX files that ONNX Runtime is fast with."""

from __future__ import annotations

from pathlib import Path

from edgekit.calibration.layers import WEIGHTED
from edgekit.core.errors import RecipeError
from edgekit.core.records import Artifact, Network, QuantPlan
from edgekit.graph.onnx_file import read_onnx, save_onnx
from edgekit.lowering.protocol import Lowering, Options
from edgekit.lowering.qdq import Style, write_qdq

# ONNX Runtime's CPU kernels are uint8: activations with zero points, outputs and biases quantized,
# and the operators between convolutions too, so that tensors stay in int8 from layer to layer.
_SPREAD = frozenset({"Sigmoid", "Mul", "Add", "Concat", "MaxPool", "Resize", "Slice", "Split", "Reshape"})
# On x86 without VNNI, sums of two products are kept in 16 bits, and saturate with weights of more than 7 bits.
_STYLES = {
    "": Style(unsigned=True, full=True, spread=_SPREAD, biases=True),
    "narrow": Style(unsigned=True, full=True, spread=_SPREAD, biases=True, limit=64),
}


class OnnxRuntimeLowering:
    """float32 and fp16 graphs as they are; int8 as uint8 Q/DQ."""

    precisions = ("fp32", "fp16", "int8")
    styles = tuple(_STYLES)

    def lower(self, network: Network, plan: QuantPlan | None, options: Options, out: Path) -> Artifact:
        """Write `model.onnx` and return the artifact."""
        model = read_onnx(network.main.path)
        wanted: dict[str, str] = {}
        if options.precision == "int8":
            if plan is None:
                raise RecipeError("int8 needs a quantize pass", hint="Add `quantize-int8` to passes.")
            model = write_qdq(model, plan, _STYLES[options.style])
            wanted = dict.fromkeys(plan.int8_layers(), "int8")
        if options.precision == "fp16":
            wanted = {n.name: "fp16" for n in model.graph.node if n.op_type in WEIGHTED}
        save_onnx(model, out / "model.onnx")
        return Artifact(
            backend="onnxruntime",
            precision=options.precision,
            main=out / "model.onnx",
            contract=network.contract,
            options={"threads": options.threads},
            wanted=wanted,
        )


PLUGIN: Lowering = OnnxRuntimeLowering()
