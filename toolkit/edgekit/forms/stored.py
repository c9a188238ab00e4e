"""Keep records as JSON files between runs, and bring them back as the same records."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from edgekit.core.digest import plain
from edgekit.core.files import write_json
from edgekit.core.lazy import need

Record = TypeVar("Record")


def store(path: Path, record: object) -> None:
    """Write a record as JSON."""
    write_json(path, plain(record))


def restore(path: Path, kind: type[Record]) -> Record:
    """Return the record of dataclass `kind` (or a container of them) that `store` wrote."""
    pydantic = need("pydantic", extra="host", why="read kept steps")
    found: Record = pydantic.TypeAdapter(kind).validate_json(path.read_bytes())
    return found
