"""What a host asks of a board: one order, its files named by their SHA-256."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from edgekit.core.digest import plain
from edgekit.core.errors import RecipeError

SCHEMA = "edgekit/order/v1"


@dataclass(frozen=True, kw_only=True)
class Order:
    """One piece of work for a board; it may be carried out again until its result is written.

    Attributes:
        id: Unique; results are known by it, so that none is stored twice.
        do: "bench", "compare", or what a compile asks: "contest", "answers", "pair", "parity", "golden", "encoder"; "engine".
        who: Who asks, as user@host: shown to whoever finds the board taken.
        when: UTC in ISO 8601, by the clock of whoever asks: a board's own clock may be wrong.
        device: Name the board was asked for by.
        files: SHA-256 of every file by its path below the order's folder.
        subject: Name, kind and SHA-256 of what runs.
        bundle: Folder of the bundle, empty where an artifact is given.
        variant: Of the bundle; empty lets the board pick the one that suits it.
        artifact: Instead of a bundle, its `main` below the order's folder.
        other: Of "compare": bundle, variant, artifact and subject of B; what stands above is A.
        frames: Images or arrays to draw inputs from.
        settings: What the work needs to know: mode, spans, seed and the like.
    """

    id: str
    do: str
    who: str
    when: str
    device: str
    files: Mapping[str, str] = field(default_factory=dict)
    subject: Mapping[str, str] = field(default_factory=dict)
    bundle: str = ""
    variant: str = ""
    artifact: Mapping[str, Any] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)
    frames: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA


def order_text(order: Order) -> str:
    """Return an order as JSON."""
    return json.dumps(plain(order), sort_keys=True)


def order_from(text: str) -> Order:
    """Return the order in a JSON text.

    Raises:
        RecipeError: It is none of this schema, or names a file outside its folder.
    """
    try:
        data = json.loads(text)
        if data.get("schema") != SCHEMA:
            raise RecipeError(
                f"order: schema {data.get('schema')!r}, this agent reads {SCHEMA!r}",
                hint="Use one edgekit version on both ends; the host installs its own agent.",
            )
        order = Order(**{**data, "frames": tuple(data.get("frames", ()))})
        _refuse(order)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise RecipeError(f"order: cannot be read ({error})", hint="Send it again.") from error
    return order


def is_digest(text: object) -> bool:
    """Return whether a text is a SHA-256 in hex."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _refuse(order: Order) -> None:
    """Refuse an order that names anything but blobs and files below its own folder.

    Raises:
        RecipeError: It does.
    """
    if not isinstance(order.id, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", order.id):
        raise RecipeError(f"order: {order.id!r} is no id", hint="Do not use it.")
    for digest in order.files.values():
        if not is_digest(digest):
            raise RecipeError(f"order: {digest!r} is no SHA-256", hint="Do not use it.")
    artifacts = [
        order.artifact,
        order.other.get("artifact", {}),
        *order.settings.get("entrants", {}).values(),
    ]
    mains = [a["main"] for a in artifacts if a]
    bundles = [b for b in (order.bundle, order.other.get("bundle", "")) if b]
    for path in (*order.files, *order.frames, *mains, *bundles):
        pure = PurePosixPath(str(path))
        if pure.is_absolute() or ".." in pure.parts or not path:
            raise RecipeError(f"order: {path!r} points outside its folder", hint="Do not use it.")
