"""Look at this installation."""

from __future__ import annotations

import sys
from typing import Any

from edgekit import __version__
from edgekit.core.places import cache_home, config_home, shipped
from edgekit.core.versions import versions

_PACKAGES = (
    ("numpy", "-", "everything"),
    ("onnxruntime", "host", "run and compile ONNX"),
    ("openvino", "host", "run and compile OpenVINO IR"),
    ("onnx", "host", "read and write models"),
    ("onnxslim", "host", "simplify"),
    ("pydantic", "host", "check recipes"),
    ("PyYAML", "host", "read recipes"),
    ("pycocotools", "host", "compute mAP"),
    ("opencv-python-headless", "vision", "decode, resize, draw"),
    ("opencv-python", "train", "the same; ultralytics brings it"),
    ("cryptography", "sign", "sign and check signatures"),
    ("nncf", "nncf", "the peer in scripts/bench"),
    ("torch", "train", "export torch models"),
    ("ultralytics", "train", "YOLO architectures and checkpoints"),
    ("timm", "train", "classifiers"),
)


def examined() -> dict[str, Any]:
    """Return packages with versions, edgekit's folders, and warnings."""
    found = versions(*(p for p, _, _ in _PACKAGES))
    warnings = []
    pair = [found["opencv-python"], found["opencv-python-headless"]]
    if all(pair) and pair[0] != pair[1]:
        warnings.append(
            f"opencv-python {pair[0]} and opencv-python-headless {pair[1]} overwrite each other: install one version of both"
        )
    if not found["onnxruntime"] and not found["openvino"]:
        warnings.append(
            "no engine is installed: pip install 'edgekit[host]', or onnxruntime alone to run bundles"
        )
    return {
        "edgekit": __version__,
        "python": sys.version.split()[0],
        "packages": [{"package": p, "version": found[p], "extra": e, "use": u} for p, e, u in _PACKAGES],
        "places": {
            "cache": str(cache_home()), "devices": str(config_home() / "devices.yaml"),
            "recipes": str(shipped("recipes")), "models": str(shipped("models")),
        },
        "warnings": warnings,
    }  # fmt: skip
