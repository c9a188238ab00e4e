"""Say who asks a board for something, when, and under which id."""

from __future__ import annotations

import datetime as dt
import getpass
import re
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.board.orders import Order
from edgekit.core.digest import digest_file


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_id(stamp: str, name: str) -> str:
    """Return a new id of an order or result, which is a file's name, too."""
    plain_name = re.sub(r"[^A-Za-z0-9_.-]", "-", name)
    return f"{re.sub('[-:]', '', stamp)}-{plain_name}-{uuid.uuid4().hex[:8]}"


def new_order(do: str, device: str, sources: Mapping[str, Path], **words: Any) -> Order:
    """Return an order of this user, now, with the hash of every file.

    Args:
        do: What shall be done.
        device: Name it is asked for by.
        sources: Local files by their path in the order's folder.
        words: What else an order says.
    """
    stamp = now()
    return Order(
        id=new_id(stamp, device), do=do, who=f"{getpass.getuser()}@{socket.gethostname()}", when=stamp, device=device,
        files={p: digest_file(f) for p, f in sources.items()}, **words,
    )  # fmt: skip
