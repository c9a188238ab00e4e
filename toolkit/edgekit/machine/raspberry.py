"""Read what a Raspberry Pi's firmware says: throttling bits, temperature, power of the rails."""

from __future__ import annotations

import re

from edgekit.machine.readings import Unknown

# vcgencmd get_throttled; the same bits shifted by 16 mean "since boot" (Raspberry Pi documentation).
_BITS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


def throttled_bits(text: str) -> int | Unknown:
    """Return the bits in `vcgencmd get_throttled` ("throttled=0x50005") or sysfs' get_throttled ("50005").

    The tool may print an error with exit status 0, so that only the text tells.
    """
    found = re.fullmatch(r"(?:throttled=0x)?([0-9a-fA-F]+)", text.strip())
    return int(found[1], 16) if found else Unknown(text.strip().partition("\n")[0][:80] or "no answer")


def words_of(bits: int) -> dict[str, list[str]]:
    """Return what the bits say, now and since boot."""
    return {
        "now": [word for bit, word in _BITS.items() if bits >> bit & 1],
        "since boot": [word for bit, word in _BITS.items() if bits >> (bit + 16) & 1],
    }


def newly(before: int, after: int) -> list[str]:
    """Return what happened between two readings: bits set now, or sticky bits that were not set before."""
    risen = after & ~before
    return [word for bit, word in _BITS.items() if after >> bit & 1 or risen >> (bit + 16) & 1]


def rails_w(text: str) -> dict[str, float] | Unknown:
    """Return the power of each rail that `vcgencmd pmic_read_adc` gives volts and amperes of.

    The 5 V input has no current: the sum is the SoC's side only, never the board's.
    """
    amperes = dict(re.findall(r"(\w+)_A\s+current\(\d+\)=([\d.]+)A", text))
    volts = dict(re.findall(r"(\w+)_V\s+volt\(\d+\)=([\d.]+)V", text))
    both = {name: float(amperes[name]) * float(volts[name]) for name in amperes if name in volts}
    return both or Unknown("pmic_read_adc shows no rail with volts and amperes")
