"""Write the C header that encodes on a microcontroller or a camera's processor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor

_TOP = """/* Encodes the values of one sensor. Made by edgekit; C99, no allocation, no state.
 *
 * One row of one channel at a time:
 *
 *     edgekit_encode_row(values, width, channel, out);
 *
 * `out` gets edgekit_row_bytes(width) bytes: codes without gaps, the first one in the lowest bits.
 * Values outside the sensor's range are taken as its lowest or highest one.
 * Define EDGEKIT_THRESHOLDS to search {bits} comparisons deep in a list instead of looking up a table
 * ({small} instead of {large} bytes of constants).
 */
#ifndef EDGEKIT_ENCODER_H
#define EDGEKIT_ENCODER_H

#include <stddef.h>
#include <stdint.h>

#define EDGEKIT_CHANNELS {channels} /* {names} */
#define EDGEKIT_BITS {bits}
#define EDGEKIT_LOWEST ({lowest})
#define EDGEKIT_VALUES {values}

typedef {kind} edgekit_value;

"""

_SEARCH = """static unsigned edgekit_code(long value, unsigned channel)
{
    const int32_t *t = edgekit_thresholds[channel];
    unsigned low = 0, high = (1u << EDGEKIT_BITS) - 1u;
    if (value > EDGEKIT_LOWEST + EDGEKIT_VALUES - 1L) value = EDGEKIT_LOWEST + EDGEKIT_VALUES - 1L;
    while (low < high) {
        unsigned middle = (low + high) / 2u;
        if (value >= t[middle]) low = middle + 1u; else high = middle;
    }
    return low;
}
"""

_LOOK = """static unsigned edgekit_code(long value, unsigned channel)
{
    long at = value - EDGEKIT_LOWEST;
    if (at < 0) at = 0;
    if (at >= EDGEKIT_VALUES) at = EDGEKIT_VALUES - 1;
    return edgekit_table[channel][at];
}
"""

_REST = """
static size_t edgekit_row_bytes(size_t width)
{
    return (width * EDGEKIT_BITS + 7u) / 8u;
}

static void edgekit_encode_row(const edgekit_value *values, size_t width, unsigned channel, uint8_t *out)
{
#if EDGEKIT_BITS == 4
    /* The usual case: two codes a byte, no buffer of bits. */
    size_t i;
    for (i = 0; i + 1 < width; i += 2)
        *out++ = (uint8_t)(edgekit_code(values[i], channel) | edgekit_code(values[i + 1], channel) << 4);
    if (i < width) *out = (uint8_t)edgekit_code(values[i], channel);
#else
    uint32_t bits = 0;
    unsigned held = 0;
    for (size_t i = 0; i < width; i++) {
        bits |= (uint32_t)edgekit_code(values[i], channel) << held;
        for (held += EDGEKIT_BITS; held >= 8; held -= 8) {
            *out++ = (uint8_t)bits;
            bits >>= 8;
        }
    }
    if (held) *out = (uint8_t)bits;
#endif
}

#endif
"""


def c_header(
    codes: NDArray[np.integer], sensor: Sensor, thresholds: Sequence[Sequence[int]], bits: int
) -> str:
    """Return `encoder.h`.

    Args:
        codes: (C, 2^N), the table.
        sensor: Whose values they are.
        thresholds: C lists; empty where there are none, and then the table is the only way.
        bits: Of one code.
    """
    channels = len(codes)
    kind = ("int" if sensor.signed else "uint") + ("8_t" if sensor.bits <= 8 else "16_t")
    cell = "uint8_t" if bits <= 8 else "uint16_t"
    small = 4 * sum(len(t) for t in thresholds)
    words = {
        "channels": channels, "names": ", ".join(sensor.names), "bits": bits, "lowest": sensor.lowest,
        "values": sensor.values, "kind": kind, "small": small or "no", "large": codes.size * codes.itemsize,
    }  # fmt: skip
    text = _TOP.format(**words)
    table = _array(f"static const {cell} edgekit_table[EDGEKIT_CHANNELS][EDGEKIT_VALUES]", codes.tolist())
    if not thresholds:
        return text + table + _LOOK + _REST
    lists = _array(
        f"static const int32_t edgekit_thresholds[EDGEKIT_CHANNELS][{len(thresholds[0])}]", thresholds
    )
    return f"{text}#ifdef EDGEKIT_THRESHOLDS\n{lists}{_SEARCH}#else\n{table}{_LOOK}#endif\n{_REST}"


def _array(what: str, rows: Sequence[Sequence[int]]) -> str:
    lines = [f"{what} = {{"]
    for row in rows:
        lines.append("  {")
        lines += [f"    {','.join(map(str, row[k : k + 32]))}," for k in range(0, len(row), 32)]
        lines.append("  },")
    return "\n".join([*lines, "};\n\n"])
