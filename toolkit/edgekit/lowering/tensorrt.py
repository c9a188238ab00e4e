"""Lower a network to what a TensorRT engine is built from on the device."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekit.core.files import write_json
from edgekit.core.records import Artifact, Network, QuantPlan
from edgekit.lowering.protocol import Lowering, Options


class TensorRtLowering:
    """A profile: the simplified float32 ONNX and `build.json`, no engine."""

    precisions = ("fp32", "fp16", "int8")
    styles = ("",)

    def lower(self, network: Network, plan: QuantPlan | None, options: Options, out: Path) -> Artifact:
        """Write `model.onnx` and `build.json` and return the artifact."""
        shutil.copyfile(network.main.path, out / "model.onnx")
        int8 = sorted(plan.int8_layers()) if plan and options.precision == "int8" else []
        wishes = {
            "engine": "build-on-device",
            "precision": options.precision,
            "int8_layers": int8,
            "ranges": {n: list(r) for n, r in sorted(plan.ranges.items())} if int8 and plan else {},
            **options.wishes,
        }
        write_json(out / "build.json", wishes)
        return Artifact(
            backend="tensorrt",
            precision=options.precision,
            main=out / "model.onnx",
            contract=network.contract,
            wanted=dict.fromkeys(int8, "int8"),
        )


PLUGIN: Lowering = TensorRtLowering()
