"""What `report.json` says of a compile."""

from __future__ import annotations

from typing import Any

from edgekit.core.digest import plain
from edgekit.core.outcome import Outcome


def report_data(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as report.json has it, the verdict in words included."""
    return {
        "schema": "edgekit/report/v1",
        "verdict": outcome.words,
        "exit_code": outcome.exit_code,
        **plain(outcome),
    }
