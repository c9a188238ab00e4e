"""What commands print: tables, JSON, and progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from edgekit.core.digest import plain
from edgekit.core.watch import watched_by

Command = TypeVar("Command", bound=Callable[..., Any])
_SHOWN_AFTER_S = 2.0
_LINE_EVERY_S = 15.0


def reporting(command: Command) -> Command:
    """Give a command `--json` and `--debug`."""
    command = click.option("--debug", is_flag=True, help="Show tracebacks.", expose_value=False)(command)
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def show_json(value: object) -> None:
    """Print a value as JSON on stdout."""
    click.echo(json.dumps(plain(value), indent=2, sort_keys=True, ensure_ascii=False))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print rows in aligned columns; the last column is not padded."""
    cells = [list(heads), *[list(r) for r in rows]]
    widths = [max(len(_bare(row[k])) for row in cells) for k in range(len(heads))]
    for number, row in enumerate(cells):
        parts = []
        for k, cell in enumerate(row):
            gap = " " * (widths[k] - len(_bare(cell)))
            parts.append(gap + cell if k in right else cell + (gap if k < len(row) - 1 else ""))
        line = "  ".join(parts).rstrip()
        click.echo(click.style(line, dim=True) if number == 0 else line)


def _bare(text: str) -> str:
    return click.unstyle(text)


def state_words(state: str) -> str:
    """Return a gate's state, coloured."""
    return click.style(state, fg={"pass": "green", "fail": "red"}.get(state, "yellow"))


class Progress:
    """Draws phases and bars on stderr: one moving line on a terminal, now and then a line elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._phase, self._name = "", ""
        self._began = self._shown = time.monotonic()

    def phase(self, name: str) -> None:
        """A stage begins."""
        self._clear()
        self._phase = name
        self._name, self._began, self._shown = "", time.monotonic(), time.monotonic()
        if self._live:
            self._draw(f"{name} …")
        else:
            click.echo(f"{name} …", err=True)

    def step(self, name: str, done: int, total: int) -> None:
        """Draw the bar of a step that takes more than two seconds."""
        now = time.monotonic()
        if name != self._name or done == 1:
            self._name, self._began, self._shown = name, now, now if not self._live else self._shown
        spent = now - self._began
        if spent < _SHOWN_AFTER_S or not total:
            return
        left = spent / max(done - 1, 1) * (total - done)
        text = f"{name} {done}/{total}, {_clock(left)} left"
        if self._live and now - self._shown > 0.1:
            self._shown = now
            full = round(20 * done / total)
            phase = f"{self._phase}: " if self._phase else ""
            self._draw(f"{phase}{'█' * full}{'░' * (20 - full)} {text}")
        elif not self._live and now - self._shown > _LINE_EVERY_S:
            self._shown = now
            click.echo(f"  {text}", err=True)

    def note(self, text: str) -> None:
        """Print a line of its own."""
        self._clear()
        click.echo(text, err=True)

    def close(self) -> None:
        """Leave the terminal's line empty."""
        self._clear()

    def _draw(self, text: str) -> None:
        width = click.get_current_context().terminal_width or 100
        sys.stderr.write(f"\r\x1b[2K{text[:width]}")
        sys.stderr.flush()

    def _clear(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


@contextmanager
def drawn() -> Iterator[None]:
    """Draw the progress of a block on stderr, and leave the terminal's line empty after it."""
    progress = Progress()
    try:
        with watched_by(progress):
            yield
    finally:
        progress.close()


def _clock(seconds: float) -> str:
    whole = max(round(seconds), 0)
    return f"{whole // 60}:{whole % 60:02d} min" if whole >= 60 else f"{whole} s"
