"""Say what TensorRT would make of an ONNX file, and what TensorRT for RTX says of it where it is installed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.devices.jetpacks import Target, target_for
from edgekit.devices.profiles import profile_of
from edgekit.graph.onnx_file import read_onnx
from edgekit.graph.walk import name_nodes
from edgekit.lowering.trt_lint import ERROR, Finding, lint
from edgekit.lowering.trt_rtx import Accepted, asked


@dataclass(frozen=True, kw_only=True)
class Linted:
    """What was found in one file for one target."""

    path: Path
    target: Target
    findings: tuple[Finding, ...]
    rtx: Accepted = field(default_factory=lambda: Accepted(state="not checked", words="not asked"))

    @property
    def errors(self) -> int:
        """How many findings a build would fail on."""
        return sum(f.severity == ERROR for f in self.findings)


def linted(path: Path, device: str, *, rtx: bool = False, **words: Any) -> Linted:
    """Return the findings of one ONNX file for a device.

    Args:
        path: The file, in any dialect.
        device: Profile with TensorRT.
        rtx: Ask TensorRT for RTX's parser and builder, too.
        words: `jetpack`, `tensorrt`, `dla` and `weak`, as `target_for` takes them.

    Raises:
        RecipeError: The file is none, or the target does not exist.
    """
    target = target_for(profile_of(device), **words)
    model = read_onnx(path)
    name_nodes(model.graph)
    found = Linted(path=path, target=target, findings=tuple(lint(model, target)))
    return Linted(**{**vars(found), "rtx": asked(path)}) if rtx else found
