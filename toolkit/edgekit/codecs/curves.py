"""Curves that are not learned, and the way from thresholds to a table and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor
from edgekit.core.errors import RecipeError

# Keeps the floor of a value that should be whole from falling one below it.
EPSILON = 1e-6
# Of the mu-law, as telephony has it (ITU-T G.711).
_MU = 255.0


def usual_per(sensor: Sensor, per: str) -> str:
    """Return what a curve is one of: what was asked for, else an axis of a time series, the whole of other sensors."""
    return per or ("axis" if sensor.axes else "sensor")


def refuse_wide(sensor: Sensor, bits: int) -> None:
    """Refuse to keep more bits than there are.

    Raises:
        RecipeError: `bits` is above the sensor's.
    """
    if bits > sensor.bits:
        raise RecipeError(
            f"passes.gamma-quant: bits: {bits} of a sensor of {sensor.bits}",
            hint="Keep fewer, or take curve: none.",
        )


def fixed_codes(curve: str, sensor: Sensor, bits: int) -> NDArray[np.int64]:
    """Return the code of every sensor value (2^N,) under a curve without parameters.

    `none` keeps the sensor's own bits: the value above black.

    Raises:
        RecipeError: The curve does not go with this sensor.
    """
    x = np.arange(sensor.values, dtype=np.int64) + sensor.lowest
    if curve == "none":
        low, high = (sensor.lowest, -sensor.lowest - 1) if sensor.signed else (sensor.black, sensor.full)
        own: NDArray[np.int64] = np.clip(x, low, high) - low
        return own
    if sensor.signed:
        z = _signed(curve, x / (1 << (sensor.bits - 1)))
        return np.clip(np.floor((z + 1) / 2 * (1 << bits)), 0, (1 << bits) - 1).astype(np.int64)
    whole = sensor.full - sensor.black
    light = np.clip(x - sensor.black, 0, whole).astype(np.float64)
    levels = (1 << bits) - 1
    if curve == "log":
        shares = np.log1p(light) / np.log1p(whole)
    else:
        shares = light / whole if curve == "linear" else np.log1p(_MU * light / whole) / np.log1p(_MU)
    found: NDArray[np.int64] = np.clip(np.floor(shares * levels + EPSILON), 0, levels).astype(np.int64)
    return found


def _signed(curve: str, u: NDArray[np.float64]) -> NDArray[np.float64]:
    if curve == "log":
        raise RecipeError(
            "passes.gamma-quant: curve: log goes with unsigned sensors alone", hint="Take mu-law."
        )
    if curve == "linear":
        return u
    bent: NDArray[np.float64] = np.sign(u) * np.log1p(_MU * np.abs(u)) / np.log1p(_MU)
    return bent


def value_scale(sensor: Sensor, bits: int, curve: str) -> tuple[float, float]:
    """Return (scale, offset) of what the network sees of a code: value = code * scale + offset.

    0 to 1 for unsigned sensors; -1 to 1 for signed ones, each code at the middle of its step.
    """
    if curve == "none":
        half = 1 << (sensor.bits - 1)
        return (1 / half, -1.0) if sensor.signed else (1 / (sensor.full - sensor.black), 0.0)
    if sensor.signed:
        return 2 / (1 << bits), 1 / (1 << bits) - 1
    return 1 / ((1 << bits) - 1), 0.0


def thresholds_of(codes: NDArray[np.integer], sensor: Sensor, bits: int) -> tuple[int, ...]:
    """Return the smallest value with a code of at least k, for k from 1 to 2^bits - 1.

    A code that no value has shares its threshold with the next one; above the last code that occurs, thresholds
    lie one above the largest value.

    Args:
        codes: (2^N,) non-decreasing.
        sensor: Whose values they are.
        bits: Of a code.
    """
    ks = np.arange(1, 1 << bits)
    return tuple(int(v) + sensor.lowest for v in np.searchsorted(codes, ks, side="left"))


def codes_of(thresholds: Sequence[int], sensor: Sensor) -> NDArray[np.int64]:
    """Return the code of every sensor value (2^N,) under thresholds."""
    x = np.arange(sensor.values, dtype=np.int64) + sensor.lowest
    found: NDArray[np.int64] = np.searchsorted(np.asarray(thresholds, np.int64), x, side="right")
    return found
