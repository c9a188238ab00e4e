"""Small classifiers of a sensor's signal: the nets that wearables and cameras without frames run."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

# Name, the class in `small_nets`, and one line for a person.
SMALL = {
    "digits-cnn": ("DigitsCnn", "two convolutions for 8 x 8 images"),
    "tinyhar": (
        "TinyHar",
        "convolutions, attention between axes and an LSTM for motion (TinyHAR, ISWC 2022)",
    ),
    "deepconvlstm": ("DeepConvLstm", "four convolutions and an LSTM for motion (DeepConvLSTM, Sensors 2016)"),
}


def build_small(name: str, *, shape: Sequence[int], nc: int) -> Any:
    """Return a fresh classifier of the catalogue.

    Args:
        name: One of `SMALL`.
        shape: Of one signal: (axes, samples) of a time series, (C, H, W) of an image.
        nc: Number of classes.
    """
    nets = importlib.import_module("edgekit.models.small_nets")
    return getattr(nets, SMALL[name][0])(tuple(shape), nc)
