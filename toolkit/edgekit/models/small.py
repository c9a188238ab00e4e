"""Small classifiers of a sensor's signal: the nets that wearables and cameras without frames run."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SmallNet:
    """One of the small classifiers.

    Attributes:
        kind: Its class in `small_nets`.
        what: One line for a person.
        usual: Shape of the signals it is counted on.
    """

    kind: str
    what: str
    usual: tuple[int, ...]


SMALL = {
    "digits-cnn": SmallNet(kind="DigitsCnn", what="two convolutions for 8 x 8 images", usual=(1, 8, 8)),
    "tinyhar": SmallNet(
        kind="TinyHar",
        what="motion: convolutions, attention between axes, an LSTM (TinyHAR, ISWC 2022)",
        usual=(3, 128),
    ),
    "deepconvlstm": SmallNet(
        kind="DeepConvLstm",
        what="motion: four convolutions and an LSTM (DeepConvLSTM, Sensors 2016)",
        usual=(3, 128),
    ),
}


def build_small(name: str, *, shape: Sequence[int], nc: int) -> Any:
    """Return a fresh classifier of the catalogue.

    Args:
        name: One of `SMALL`.
        shape: Of one signal: (axes, samples) of a time series, (C, H, W) of an image.
        nc: Number of classes.
    """
    nets = importlib.import_module("edgekit.models.small_nets")
    return getattr(nets, SMALL[name].kind)(tuple(shape), nc)
