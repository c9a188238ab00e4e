"""Keep results: one JSON file each, and an index beside them that can be made again from the files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edgekit.core.digest import plain
from edgekit.core.errors import RecipeError
from edgekit.core.files import json_text, resource_errors, write_json, write_text
from edgekit.core.result import SCHEMA, Result
from edgekit.core.watch import watcher
from edgekit.forms.stored import restore
from edgekit.results.index import Index, Row, row_of


def results_home() -> Path:
    """Return the folder of results: $EDGEKIT_RESULTS, else $XDG_DATA_HOME/edgekit/results."""
    if own := os.environ.get("EDGEKIT_RESULTS"):
        return Path(own)
    xdg = os.environ.get("XDG_DATA_HOME")
    return (Path(xdg) if xdg else Path.home() / ".local" / "share") / "edgekit" / "results"


class Store:
    """The folder of results with its index; `$EDGEKIT_RESULTS_URL` names a team's database instead."""

    def __init__(self, home: Path | None = None, url: str = "") -> None:
        self.home = home or results_home()
        with resource_errors(self.home):
            (self.home / "pending").mkdir(parents=True, exist_ok=True)
        self.index = Index(
            url or os.environ.get("EDGEKIT_RESULTS_URL") or f"sqlite:///{self.home}/index.sqlite"
        )

    def keep(self, result: Result) -> Path:
        """Store a result; one whose id is known already is not stored twice.

        Raises:
            ResourceError: The folder cannot be written.
        """
        if "/" in result.id or result.id.startswith("."):
            raise RecipeError(f"{result.id!r}: is no id of a result", hint="It does not come from edgekit.")
        path = self.home / f"{result.id}.json"
        with resource_errors(self.home):
            if not path.is_file():
                write_json(path, plain(result))
        self.index.add(row_of(result), json_text(plain(result)))
        return path

    def found(self, identity: str) -> Result | None:
        """Return the result of exactly this id, None where it is not here."""
        path = self.home / f"{identity}.json"
        return read_result(path) if path.is_file() else None

    def load(self, what: str) -> Result:
        """Return a result by its id, the beginning of one that fits no other, or the path of a file.

        Raises:
            RecipeError: There is none, several fit, or the file is no result.
        """
        if what.endswith(".json") and Path(what).is_file():
            return read_result(Path(what))
        fitting = self.index.ids_like(what)
        if what in fitting:
            fitting = [what]
        if len(fitting) != 1:
            problem = f"{len(fitting)} results fit" if fitting else "no such result"
            raise RecipeError(f"{what}: {problem}", hint="See `edgekit results list`.")
        path = self.home / f"{fitting[0]}.json"
        return read_result(path) if path.is_file() else parsed(self.index.body(fitting[0]), fitting[0])

    def rows(self, **wanted: str) -> list[Row]:
        """Return the index's rows, newest first, those that match; files that it does not know are added."""
        known = set(self.index.ids())
        for path in sorted(self.home.glob("*.json")):
            if path.stem not in known:
                try:
                    result = read_result(path)
                except RecipeError as error:
                    watcher().note(f"left out: {error.message}")
                    continue
                self.index.add(row_of(result), json_text(plain(result)))
        return self.index.rows(**wanted)

    def note_pending(self, identity: str, device: str) -> None:
        """Note an order that a device has: its result can be collected later."""
        with resource_errors(self.home):
            write_text(self.home / "pending" / identity, device)

    def forget_pending(self, identity: str) -> None:
        """Forget an order whose result is here, or will never be."""
        (self.home / "pending" / identity).unlink(missing_ok=True)

    def pending(self) -> Iterator[tuple[str, str]]:
        """Give id and device of each order without a result here."""
        for path in sorted((self.home / "pending").iterdir()):
            if not path.name.startswith("."):
                yield path.name, path.read_text()


def read_result(path: Path) -> Result:
    """Return the result in a file.

    Raises:
        RecipeError: It is none of this schema.
    """
    return parsed(path.read_text(), str(path))


def parsed(text: str, where: str) -> Result:
    """Return the result in a JSON text.

    Raises:
        RecipeError: It is none of this schema.
    """
    import json

    try:
        schema = json.loads(text).get("schema")
        if schema == SCHEMA:
            return restore(text.encode(), Result)
    except (ValueError, AttributeError) as error:
        raise RecipeError(
            f"{where}: is no result ({str(error).splitlines()[0]})", hint="See docs/results.md."
        ) from error
    raise RecipeError(
        f"{where}: schema {schema!r}, this edgekit reads {SCHEMA!r}", hint="See docs/results.md."
    )
