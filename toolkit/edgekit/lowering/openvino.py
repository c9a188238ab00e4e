"""Lower a network to OpenVINO IR."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.core.records import Artifact, Network, QuantPlan
from edgekit.graph.onnx_file import read_onnx, save_onnx
from edgekit.lowering.protocol import Lowering, Options
from edgekit.lowering.qdq import Style, write_qdq

_STYLES = {
    # The first is what plans are judged by; on AVX512-VNNI it was the fastest of the three.
    "uint8": Style(unsigned=True, adds=True),
    # The same with the float tail in bfloat16, where the CPU has it.
    "uint8+bf16": Style(unsigned=True, adds=True),
    "symmetric": Style(unsigned=False, adds=True),
    "no-adds": Style(unsigned=False),
    # Weights of 7 bits, for x86 without VNNI: its 16-bit sums of two products saturate with more.
    "narrow": Style(unsigned=True, adds=True, limit=64),
}
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32", "fp16": "f16"}


class OpenVinoLowering:
    """float32 IR, the same with a bfloat16 hint, or IR from Q/DQ."""

    precisions = ("fp32", "bf16", "int8")
    styles = tuple(_STYLES)

    def lower(self, network: Network, plan: QuantPlan | None, options: Options, out: Path) -> Artifact:
        """Write `model.xml` and `model.bin` and return the artifact."""
        ov = need("openvino", extra="host", why="lower to OpenVINO")
        wanted: dict[str, str] = {}
        hint = _HINTS[options.precision]
        source = network.main.path
        with tempfile.TemporaryDirectory() as folder:
            if options.precision == "int8":
                if plan is None:
                    raise RecipeError("int8 needs a quantize pass", hint="Add `quantize-int8` to passes.")
                tail = options.style.partition("+")[2]
                source = Path(folder) / "model.onnx"
                save_onnx(
                    write_qdq(read_onnx(network.main.path), plan, _STYLES[options.style or "uint8"]), source
                )
                wanted = dict.fromkeys(plan.int8_layers(), "int8")
                hint = "bf16" if tail == "bf16" else "f32"
            model = ov.convert_model(str(source))
            ov.save_model(model, str(out / "model.xml"), compress_to_fp16=False)
        if options.precision == "bf16":
            wanted = {n.name: "bf16" for n in read_onnx(network.main.path).graph.node if n.op_type == "Conv"}
        return Artifact(
            backend="openvino",
            precision=options.precision,
            main=out / "model.xml",
            contract=network.contract,
            options={"threads": options.threads, "inference_precision": hint},
            wanted=wanted,
        )


PLUGIN: Lowering = OpenVinoLowering()
