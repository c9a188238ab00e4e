"""Run ONNX files with ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.backends.ort_session import CPU, OrtSession, engine_errors, first_line, layers_of
from edgekit.backends.protocol import Arrays, Backend, Session
from edgekit.core.errors import ContractError, RecipeError
from edgekit.core.lazy import have, need
from edgekit.core.records import Artifact, LayerRun


class OnnxRuntime:
    """ONNX Runtime, CPU provider only: what falls back to another provider is an error."""

    name = "onnxruntime"
    package = "onnxruntime"

    def open(self, artifact: Artifact) -> Session:
        """Return a session with the artifact's threads, all graph optimizations on."""
        session = self._make(artifact, profile="")
        if session.get_providers() != [CPU]:
            raise ContractError(
                f"{artifact.main}: onnxruntime chose {session.get_providers()}, asked for {CPU}",
                hint="Install the onnxruntime wheel whose provider you want.",
            )
        return OrtSession(session)

    def _make(self, artifact: Artifact, *, profile: str) -> Any:
        ort = need("onnxruntime", extra="host", why=f"run {artifact.main.name}")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = int(artifact.options.get("threads", 0))
        options.inter_op_num_threads = 1
        if artifact.options.get("qdq_as_written"):
            # Its fusions of Q and DQ take fp32 scales for granted: fp16 ones make an invalid QLinearConcat.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        try:
            return ort.InferenceSession(str(artifact.main), options, providers=[CPU])
        except engine_errors() as error:
            raise RecipeError(
                f"{artifact.main}: onnxruntime {ort.__version__} cannot read it: {first_line(error)}",
                hint="Check the file with: python -m onnx.checker",
            ) from error

    def receipt(self, artifact: Artifact, inputs: Arrays) -> tuple[LayerRun, ...]:
        """Profile a few runs and return each node with its dtype and share of time."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._make(artifact, profile=str(Path(folder) / "profile"))
            names = [o.name for o in session.get_outputs()]
            for _ in range(6):
                session.run(names, dict(inputs))
            events = json.loads(Path(session.end_profiling()).read_text())
        return layers_of(events)

    def refusal(self, machine: Mapping[str, object]) -> str:
        """Return why not; runs on every CPU that has the wheel."""
        del machine
        return "" if have("onnxruntime") else "onnxruntime is not installed"


PLUGIN: Backend = OnnxRuntime()
