"""Say in words what a comparison found."""

from __future__ import annotations

from edgekit.core.comparison import Ratio


def ratio_words(ratio: Ratio) -> str:
    """Return a ratio in one line."""
    change = 100 * (ratio.ratio - 1)
    return (
        f"{ratio.what} {ratio.a_ms:.3f} to {ratio.b_ms:.3f} ms, {change:+.1f} % "
        f"(95 %: {100 * (ratio.low - 1):+.1f} to {100 * (ratio.high - 1):+.1f} %): {ratio.verdict}; "
        f"a slowdown of {100 * ratio.smallest:.1f} % would be found"
    )
