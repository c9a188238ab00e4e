"""The command line: one file a command, imported when it is asked for."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code."""
    from edgekit.cli.frame import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
