"""Stand for TensorRT on the host: engines are built and run on the device alone."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.backends.protocol import Arrays, Backend, Session
from edgekit.core.errors import MissingError
from edgekit.core.records import Artifact, LayerRun


class TensorRt:
    """A profile only: the bundle carries the ONNX file and what to build from it."""

    name = "tensorrt"
    package = "tensorrt"

    def open(self, artifact: Artifact) -> Session:
        """Refuse: this bundle holds no engine yet."""
        raise MissingError(
            f"{artifact.main}: a TensorRT engine is built on the device, none is in the bundle",
            hint="Choose another variant here, such as onnxruntime-fp32.",
        )

    def receipt(self, artifact: Artifact, inputs: Arrays) -> tuple[LayerRun, ...]:
        """Refuse, as `open` does."""
        del inputs
        self.open(artifact)
        return ()

    def refusal(self, machine: Mapping[str, object]) -> str:
        """Return why not."""
        del machine
        return "TensorRT engines are built on the device"


PLUGIN: Backend = TensorRt()
