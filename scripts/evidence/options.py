"""What every evidence script is told: whether only a slice is wanted, and where its JSON goes."""

from __future__ import annotations

import argparse
from pathlib import Path


def options_of(words: str | None, kept: Path) -> argparse.ArgumentParser:
    """Return a parser with `--slice` and `--out`.

    Args:
        words: The script's own description.
        kept: Where the JSON goes by itself.
    """
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slice", action="store_true", help="a minute of it, for CI; writes nothing")
    parser.add_argument("--out", type=Path, default=kept)
    return parser
