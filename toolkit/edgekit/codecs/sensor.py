"""What a sensor is: its bits, levels and layout."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.errors import RecipeError

MOSAICS = ("RGGB", "BGGR", "GRBG", "GBRG")
# A table of every value of a 16-bit sensor has 65,536 rows; one of 24 bits would have 17 million.
MOST_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """A sensor whose values are integers.

    Attributes:
        bits: Of one value: 0 to 2^bits - 1, signed -2^(bits-1) to 2^(bits-1) - 1.
        signed: Whether values lie around zero (accelerometer, gyroscope), or start from it (light).
        black: Value without any light; values below count as it. Unsigned sensors alone.
        white: Value at which the sensor is full; 0 takes the largest. Unsigned sensors alone.
        mosaic: Colour pattern of the upper left 2 x 2 pixels, row by row: RGGB, BGGR, GRBG or GBRG; empty for
            one plane or for a time series.
        axes: Names of the channels of a time series; empty for images.
        rate_hz: Samples a second of a time series, frames a second of images; 0 where nobody said.
    """

    bits: int
    signed: bool = False
    black: int = 0
    white: int = 0
    mosaic: str = ""
    axes: tuple[str, ...] = ()
    rate_hz: float = 0.0

    @property
    def lowest(self) -> int:
        """The smallest value there is."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def full(self) -> int:
        """The value at which an unsigned sensor is full."""
        return self.white or (1 << self.bits) - 1

    @property
    def values(self) -> int:
        """How many values there are."""
        return 1 << self.bits

    @property
    def channels(self) -> int:
        """Planes or axes that are coded one by one: four of a mosaic."""
        return 4 if self.mosaic else max(len(self.axes), 1)

    @property
    def names(self) -> tuple[str, ...]:
        """What the channels are called."""
        return ("R", "G1", "G2", "B") if self.mosaic else self.axes or ("light",)


def check_sensor(sensor: Sensor, where: str) -> None:
    """Refuse a sensor that cannot be.

    Raises:
        RecipeError: Bits, levels or pattern make no sense; `where` stands in the message.
    """
    if not 2 <= sensor.bits <= MOST_BITS:
        raise RecipeError(
            f"{where}: sensor.bits: should be 2 to {MOST_BITS}, found {sensor.bits}",
            hint="Companded sensors give their linear bits; wider ones are not supported.",
        )
    if sensor.mosaic and sensor.mosaic not in MOSAICS:
        raise RecipeError(
            f"{where}: sensor.mosaic: no {sensor.mosaic!r}", hint=f"It is one of {', '.join(MOSAICS)}."
        )
    if sensor.mosaic and (sensor.axes or sensor.signed):
        raise RecipeError(
            f"{where}: sensor.mosaic: goes with unsigned images alone", hint="Leave axes and signed out."
        )
    if sensor.signed and (sensor.black or sensor.white):
        raise RecipeError(
            f"{where}: sensor.black and sensor.white: go with unsigned sensors alone", hint="Leave them out."
        )
    if not sensor.signed and not 0 <= sensor.black < sensor.full < sensor.values:
        raise RecipeError(
            f"{where}: sensor: black {sensor.black} and white {sensor.full} should rise within 0 to {sensor.values - 1}",
            hint="Black is what the sensor gives in the dark, white where it is full.",
        )
