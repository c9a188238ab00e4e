"""Find out what the codec before a model costs and saves: bytes a frame, time to encode, time of the decoder's layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.codecs.sensor_table import table_of
from edgekit.core.outcome import Link, VariantOutcome
from edgekit.core.plugins import pick
from edgekit.core.watch import watcher
from edgekit.frames.coded import read_frame
from edgekit.graph.sensor_front import FRONT
from edgekit.jobs.ask import Ask
from edgekit.jobs.data import Data
from edgekit.jobs.variants import Lowered
from edgekit.measure.encoder import encoder_times

_FRAMES = 16


def link_of(
    ask: Ask, data: Data | None, one: Lowered, chosen: VariantOutcome, history: Sequence[Mapping[str, Any]]
) -> Link | None:
    """Return what is known of the link, None where no codec stands before the model.

    The encoder is timed on real frames of the data: on the board where there is one, else on this host.

    Args:
        ask: The compile.
        data: Of the recipe.
        one: The chosen variant.
        chosen: What was found out about it.
        history: What was learned of the curve in each epoch.
    """
    contract = one.artifact.contract
    if contract.frames is None or contract.frames.coding is None:
        return None
    coding = contract.frames.coding
    table = table_of(coding.settings)
    sent, whole = pick("codecs", coding.codec, what="codec").sizes(coding.settings)
    times: dict[str, Any] = {}
    if data:
        watcher().phase("encoder")
        files = [s.path for s in data.validation[:_FRAMES]]
        if ask.board:
            times = ask.board.encoder(one.artifact, files)
        else:
            times = encoder_times(coding, [read_frame(f, contract.frames) for f in files])
    front = sum(
        r.share
        for r in chosen.receipt
        if r.name.startswith(FRONT) or any(c.startswith(FRONT) for c in r.covers)
    )
    rate = table.sensor.rate_hz / (table.width if table.sensor.axes else 1)
    return Link(
        codec=coding.codec, curve=table.curve, bits=table.bits, sensor_bits=table.sensor.bits, bytes_per_frame=sent,
        sensor_bytes_per_frame=whole, frames_per_second=rate, front_share=front if chosen.receipt else None,
        where=ask.where if ask.board else "this host", gamma=table.gamma, gain=table.gain, mu=table.mu,
        channels=table.sensor.names,
        values=(table.sensor.lowest, table.sensor.lowest + table.sensor.values - 1), thresholds=table.thresholds,
        history=tuple(history), **times,
    )  # fmt: skip
