"""Tell how far a long step is, so that a person or a program can watch it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Watcher(Protocol):
    """Hears what a run does; the CLI's draws it, the API's default is silent."""

    def phase(self, name: str) -> None:
        """A stage begins."""

    def step(self, name: str, done: int, total: int) -> None:
        """`done` of `total` pieces of `name` are finished."""

    def note(self, text: str) -> None:
        """Something a person should know, now."""


class Silent:
    """Hears everything and shows nothing."""

    def phase(self, name: str) -> None:
        """Do nothing."""

    def step(self, name: str, done: int, total: int) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


_LOCAL = threading.local()


def watcher() -> Watcher:
    """Return the watcher of this thread."""
    current: Watcher = getattr(_LOCAL, "watcher", None) or Silent()
    return current


@contextmanager
def watched_by(one: Watcher) -> Iterator[None]:
    """Let `one` hear what this thread does inside the block."""
    before = getattr(_LOCAL, "watcher", None)
    _LOCAL.watcher = one
    try:
        yield
    finally:
        _LOCAL.watcher = before


def steps(name: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """Give the items one by one and tell the watcher after each."""
    heard = watcher()
    for done, item in enumerate(items, 1):
        yield item
        heard.step(name, done, total)
