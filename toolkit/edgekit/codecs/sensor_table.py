"""Code a sensor's values by a table of one code a value: the codec that gamma-quant learns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.c_encoder import c_header
from edgekit.codecs.curves import codes_of, fixed_codes
from edgekit.codecs.packing import pack, packed_width, unpack
from edgekit.codecs.protocol import Codec
from edgekit.codecs.sensor import Sensor, check_sensor
from edgekit.core.digest import digest_bytes
from edgekit.core.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table quantizer of one sensor; the thresholds decide, the curve's parameters are for people.

    Attributes:
        sensor: Whose values it codes.
        bits: Of one code on the link.
        height: Rows of one channel; 1 for a time series.
        width: Values in one row.
        thresholds: For each channel the smallest value with a code of at least k, k from 1 to 2^bits - 1; empty
            where the sensor's own bits are kept (`curve: none`).
        scale: The network sees code * scale + offset.
        offset: See `scale`.
        curve: gamma, linear, log, mu-law or none.
        mode: Of gamma: what was learned, `gain` or `paper`.
        per: Of gamma: what has a curve of its own.
        gamma: Exponents, one a channel; empty where the curve has none.
        gain: Factors before the exponent.
        mu: Middles of signed channels.
        table_sha256: SHA-256 of `sensor_lut.bin`.
        pack_order: How codes lie in bytes.
    """

    sensor: Sensor
    bits: int
    height: int
    width: int
    thresholds: tuple[tuple[int, ...], ...]
    scale: float
    offset: float
    curve: str
    mode: str = ""
    per: str = ""
    gamma: tuple[float, ...] = ()
    gain: tuple[float, ...] = ()
    mu: tuple[float, ...] = ()
    table_sha256: str = ""
    pack_order: str = "first code in the lowest bits, rows begin with a byte"

    def codes(self) -> NDArray[np.integer]:
        """Return the code of every value of every channel (C, 2^N): uint8, above 8 bits uint16."""
        kind = np.uint8 if self.bits <= 8 else np.uint16
        if self.curve == "none":
            rows = [fixed_codes("none", self.sensor, self.bits)] * self.sensor.channels
        else:
            rows = [codes_of(t, self.sensor) for t in self.thresholds]
        return np.stack(rows).astype(kind)

    def settings(self) -> dict[str, Any]:
        """Return it as a contract carries it, with the table's digest."""
        return json.loads(json.dumps({**asdict(self), "table_sha256": digest_bytes(lut_bytes(self))}))  # type: ignore[no-any-return]


def lut_bytes(table: Table) -> bytes:
    """Return `sensor_lut.bin`: C x 2^N codes, one byte each, above 8 bits two, low byte first."""
    codes = table.codes()
    return codes.astype("<u2" if table.bits > 8 else np.uint8).tobytes()


def table_of(settings: Mapping[str, Any]) -> Table:
    """Return the table that a contract carries.

    Raises:
        RecipeError: The settings are damaged: the thresholds do not give the table they were taken from.
    """
    return _opened(settings)[0]


# A contract's settings never change, and a frame must not wait for them to be read again. The settings are held
# here, too, so that their identity stays theirs.
_OPEN: dict[int, tuple[Mapping[str, Any], Table, NDArray[np.integer]]] = {}
_KEPT = 16


def _opened(settings: Mapping[str, Any]) -> tuple[Table, NDArray[np.integer]]:
    found = _OPEN.get(id(settings))
    if found is None:
        found = (settings, *_parsed(settings))
        if len(_OPEN) >= _KEPT:
            _OPEN.pop(next(iter(_OPEN)), None)
        _OPEN[id(settings)] = found
    return found[1], found[2]


def _parsed(data: Mapping[str, Any]) -> tuple[Table, NDArray[np.integer]]:
    try:
        sensor = Sensor(**{**data["sensor"], "axes": tuple(data["sensor"]["axes"])})
        known = {f.name for f in fields(Table)}
        rest: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known
        }
        rows = tuple(tuple(int(v) for v in row) for row in data["thresholds"])
        table = Table(**{**rest, "sensor": sensor, "thresholds": rows})
        check_sensor(sensor, "codec")
        codes = table.codes()
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"codec: its settings are damaged ({error})", hint="Compile it again.") from error
    if table.table_sha256 and digest_bytes(lut_bytes(table)) != table.table_sha256:
        raise RecipeError("codec: its thresholds do not give its table", hint="Compile it again.")
    return table, codes


class SensorTable:
    """One code a value, packed without gaps."""

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse damaged settings."""
        table_of(settings)

    def shape(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """Return (1, C, H, bytes a row)."""
        table = table_of(settings)
        return (1, table.sensor.channels, table.height, packed_width(table.width, table.bits))

    def encode(self, signal: NDArray[Any], settings: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Look every value up and pack the codes."""
        table, codes = _opened(settings)
        sensor = table.sensor
        wanted = (sensor.channels, table.height, table.width)
        if signal.shape != wanted or signal.dtype.kind not in "iu":
            raise RecipeError(
                f"frame: {signal.dtype} {signal.shape} given, integers {wanted} wanted",
                hint="Give what the sensor gives.",
            )
        low = int(signal.min(initial=sensor.lowest))
        high = int(signal.max(initial=sensor.lowest))
        if low < sensor.lowest or high >= sensor.lowest + sensor.values:
            raise RecipeError(
                f"frame: values {low} to {high} are not those of a {sensor.bits}-bit sensor",
                hint="Is the bit depth right? Values must not be shifted to the top of 16 bits.",
            )
        if sensor.lowest:
            signal = signal.astype(np.int32) - sensor.lowest
        found = np.stack([codes[c].take(signal[c]) for c in range(len(codes))])
        return pack(found, table.bits)[None]

    def decode(self, data: NDArray[np.uint8], settings: Mapping[str, Any]) -> NDArray[np.float32]:
        """Unpack the codes, scale them, and lay them out as the network takes them."""
        table = table_of(settings)
        codes = unpack(data, table.bits, table.width).astype(np.float32)
        values = codes * np.float32(table.scale) + np.float32(table.offset)
        if table.sensor.axes:
            return values[:, :, 0]
        if table.sensor.mosaic:
            return np.concatenate([values[:, :1], (values[:, 1:2] + values[:, 2:3]) / 2, values[:, 3:]], 1)
        return values

    def sizes(self, settings: Mapping[str, Any]) -> tuple[int, int]:
        """Return the bytes of the packed codes, and of the same values packed in the sensor's bits."""
        table = table_of(settings)
        rows = table.sensor.channels * table.height
        return tuple(rows * packed_width(table.width, b) for b in (table.bits, table.sensor.bits))  # type: ignore[return-value]

    def files(self, settings: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return table, thresholds and C header for the device; scale and layout for who decodes."""
        table = table_of(settings)
        thresholds = {
            "lowest_value": table.sensor.lowest, "channels": list(table.sensor.names),
            "thresholds": [list(row) for row in table.thresholds],
        }  # fmt: skip
        decode = {
            "shape": list(self.shape(settings)), "width": table.width, "bits": table.bits,
            "pack_order": table.pack_order, "scale": table.scale, "offset": table.offset,
        }  # fmt: skip
        return {
            "device/sensor_lut.bin": lut_bytes(table),
            "device/thresholds.json": _json(thresholds),
            "device/encoder.h": c_header(table.codes(), table.sensor, table.thresholds, table.bits).encode(),
            "device/codec.json": _json(table.settings()),
            "server/decode.json": _json(decode),
        }


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


PLUGIN: Codec = SensorTable()
