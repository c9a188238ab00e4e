"""Import third-party packages at the moment of use, silenced before they load."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from typing import Any

from edgekit.core.errors import MissingError
from edgekit.core.places import cache_home


def need(name: str, *, extra: str = "", why: str = "") -> Any:
    """Return the imported module `name`; what it would send or leave behind is off before it loads.

    Args:
        name: Dotted module name, such as "onnxruntime.quantization".
        extra: The edgekit extra that installs it.
        why: What it is needed for, for the message.

    Raises:
        MissingError: The package is not installed.
    """
    _silence(name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        package = name.partition(".")[0]
        reason = f", needed to {why}" if why else ""
        install = f"pip install 'edgekit[{extra}]'" if extra else f"pip install {package}"
        raise MissingError(f"{package} is not installed{reason}", hint=f"Run: {install}") from None


def have(name: str) -> bool:
    """Return whether package `name` could be imported, without importing it."""
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _silence(package: str) -> None:
    # onnxruntime 1.32 writes a device id into the home folder while it is imported, unless this is
    # set; onnxslim and others import it on their own.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if package in {"openvino", "nncf"}:
        _stand_in_for_openvino_telemetry()
    elif package == "ultralytics":
        os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_home() / "ultralytics"))
        os.environ["YOLO_AUTOINSTALL"] = "false"
        os.environ["YOLO_OFFLINE"] = "true"
        os.environ["YOLO_VERBOSE"] = "false"
    elif package in {"diffusers", "transformers", "huggingface_hub"}:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    elif package == "matplotlib":
        os.environ.setdefault("MPLCONFIGDIR", str(cache_home() / "matplotlib"))


class _Telemetry:
    """Answers every call of openvino_telemetry.Telemetry and does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


def _stand_in_for_openvino_telemetry() -> None:
    if "openvino_telemetry" in sys.modules:
        return
    module = types.ModuleType("openvino_telemetry")
    module.Telemetry = _Telemetry  # type: ignore[attr-defined]
    module.__path__ = []
    main = types.ModuleType("openvino_telemetry.main")
    main.Telemetry = _Telemetry  # type: ignore[attr-defined]
    sys.modules["openvino_telemetry"] = module
    sys.modules["openvino_telemetry.main"] = main
