"""Keep records as JSON files between runs, and bring them back as the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from edgekit.core.digest import plain
from edgekit.core.files import write_json
from edgekit.core.lazy import need

Record = TypeVar("Record")


def store(path: Path, record: object) -> None:
    """Write a record as JSON."""
    write_json(path, plain(record))


def restore(source: Path | bytes, kind: type[Record]) -> Record:
    """Return the record of dataclass `kind` (or a container of them) that `store` wrote."""
    text = source if isinstance(source, bytes) else source.read_bytes()
    found: Record = _adapter(kind).validate_json(text)
    return found


def rebuilt(data: Any, kind: type[Record]) -> Record:
    """Return the record of dataclass `kind` that `plain` made `data` of."""
    import json

    return restore(json.dumps(data).encode(), kind)


def _adapter(kind: Any) -> Any:
    return need("pydantic", extra="host", why="read kept steps").TypeAdapter(kind)
