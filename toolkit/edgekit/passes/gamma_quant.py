"""Let a model take a few bits of a raw sensor, through a curve that was learned together with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from edgekit.codecs.curves import fixed_codes, refuse_wide, thresholds_of, usual_per, value_scale
from edgekit.codecs.sensor import Sensor
from edgekit.codecs.sensor_table import PLUGIN as CODEC
from edgekit.codecs.sensor_table import Table, table_of
from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError
from edgekit.core.records import Coding, Frames, Graph, Network
from edgekit.graph.onnx_file import inputs_of, read_onnx, save_onnx
from edgekit.graph.sensor_front import with_front
from edgekit.graph.walk import name_nodes
from edgekit.passes.protocol import Change, Context, Pass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of gamma-quant.

    Attributes:
        bits: Kept of each value of the sensor, 1 to 8.
        curve: gamma is learned in training (arXiv 2509.22448); linear, log, mu-law and none (all bits, unquantised) are
            what it is compared with.
        mode: Of gamma: `paper` learns the exponent alone, `gain` a factor before it and, for signed sensors, the middle.
        per: One curve for the whole sensor, a channel (colour or axis), a mosaic position, an axis; empty takes axis
            for time series and sensor for images.
        lr: Learning rate of the curve, as a factor on the network's; 0 takes 3 with adamw and 1 with sgd.
    """

    bits: int = 4
    curve: Literal["gamma", "linear", "log", "mu-law", "none"] = "gamma"
    mode: Literal["gain", "paper"] = "gain"
    per: Literal["", "sensor", "channel", "mosaic", "axis"] = ""
    lr: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError("bits should be 1 to 8; curve: none keeps all of them")
        if not 0 <= self.lr <= 100:
            raise ValueError("lr should be a factor from 0 to 100 on the network's rate")


class GammaQuant:
    """Puts the tables of a sensor's curve before the network; training learns the curve (`train:`)."""

    works_on = "onnx"
    settings = Settings
    needs_samples = False
    recodes = True
    summary = "the sensor sends few bits, through a curve learned with the network (γ-Quant), packed codes in"

    def run(self, network: Network, settings: Settings, context: Context) -> Change:
        """Write the graph that takes packed codes.

        Raises:
            RecipeError: The curve was not learned, was learned for other settings, or nobody says what the sensor is.
        """
        if network.contract.frames is not None and network.contract.frames.coding:
            raise RecipeError("passes.gamma-quant: the model takes codes already", hint="Leave it out.")
        shape = network.contract.inputs[0].shape
        table = _table(settings, context, shape)
        model = with_front(read_onnx(network.main.path), table)
        name_nodes(model.graph)
        path = context.out / "main.onnx"
        save_onnx(model, path)
        coding = Coding(codec="sensor-table", settings=table.settings())
        contract = replace(network.contract, inputs=inputs_of(model), frames=Frames(coding=coding))
        graph = Graph(path=path, sha256=digest_file(path))
        done = replace(network, graphs={**network.graphs, "main": graph}, contract=contract)
        return Change(network=done, changed=True, facts=_facts(table))


def _table(settings: Settings, context: Context, shape: tuple[int, ...]) -> Table:
    """Return the learned table at the network's size, or that of a fixed curve."""
    size: dict[str, Any] = {"height": shape[2] if len(shape) == 4 else 1, "width": shape[-1]}
    learned = context.coding
    if learned:
        if apart := differs(settings, learned):
            raise RecipeError(
                f"passes.gamma-quant: the weights were trained with {apart}",
                hint="Correct the pass, or train again (`train:`).",
            )
        _refuse_other(table_of(learned).sensor, context.sensor)
        return replace(table_of(learned), table_sha256="", **size)
    if context.sensor is None:
        raise RecipeError(
            "passes.gamma-quant: nobody says what the sensor is",
            hint="Give data whose data.yaml has a `sensor:` part, or weights that were trained with the pass.",
        )
    if settings.curve == "gamma":
        raise RecipeError(
            "passes.gamma-quant: the curve was not learned",
            hint="Add a `train:` part, give weights that were trained with it, or take a fixed curve.",
        )
    return fixed_table(settings, context.sensor, **size)


def _refuse_other(learned: Sensor, given: Sensor | None) -> None:
    """Refuse data of another sensor than the curve was learned for; its rate and its axes' names say nothing of values."""
    if given is None:
        return
    for what in ("bits", "signed", "black", "full", "mosaic", "channels"):
        own, other = getattr(learned, what), getattr(given, what)
        if own != other:
            raise RecipeError(
                f"passes.gamma-quant: the weights were trained on a sensor whose {what} is {own!r}, the data's is {other!r}",
                hint="Give data of the same sensor, or train again (`train:`).",
            )


def fixed_table(settings: Settings, sensor: Sensor, *, height: int, width: int) -> Table:
    """Return the table of a curve without parameters."""
    bits = sensor.bits if settings.curve == "none" else settings.bits
    refuse_wide(sensor, bits)
    codes = fixed_codes(settings.curve, sensor, bits)
    rows = () if settings.curve == "none" else (thresholds_of(codes, sensor, bits),) * sensor.channels
    scale, offset = value_scale(sensor, bits, settings.curve)
    return Table(
        sensor=sensor, bits=bits, height=height, width=width, thresholds=rows, scale=scale, offset=offset,
        curve=settings.curve,
    )  # fmt: skip


def differs(settings: Settings, learned: Mapping[str, Any]) -> str:
    """Return in what a learned coding is not what the settings ask for, empty where it is."""
    wanted: dict[str, Any] = {"curve": settings.curve}
    if settings.curve != "none":
        wanted["bits"] = settings.bits
    if settings.curve == "gamma":
        wanted |= {"mode": settings.mode, "per": usual_per(table_of(learned).sensor, settings.per)}
    return ", ".join(f"{k} {learned[k]} instead of {v}" for k, v in wanted.items() if learned[k] != v)


def _facts(table: Table) -> dict[str, Any]:
    sent, whole = CODEC.sizes(table.settings())
    codes = table.codes()
    return {
        "curve": table.curve, "bits": table.bits, "sensor_bits": table.sensor.bits, "signed": table.sensor.signed,
        "channels": list(table.sensor.names), "gamma": list(table.gamma), "gain": list(table.gain), "mu": list(table.mu),
        "black": table.sensor.black, "white": table.sensor.full if not table.sensor.signed else 0,
        "width": table.width, "pack_order": table.pack_order, "value_scale": table.scale, "value_offset": table.offset,
        "codes_used": [int(np.unique(row).size) for row in codes], "bytes_per_frame": sent,
        "sensor_bytes_per_frame": whole, "table_sha256": table.settings()["table_sha256"],
    }  # fmt: skip


PLUGIN: Pass = GammaQuant()
