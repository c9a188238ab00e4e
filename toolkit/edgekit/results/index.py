"""Find results in a database: SQLite in a file, or whatever SQLAlchemy reaches."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from edgekit.core.errors import RecipeError, ResourceError
from edgekit.core.lazy import need
from edgekit.core.result import Result
from edgekit.core.watch import watcher

_BUSY_S = 30


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the index knows of a result; `median_ms` and `p90_ms` are those of its first span.

    A p90 that the runs do not carry is None.
    """

    id: str
    when: str
    device: str
    mode: str
    state: str
    reason: str
    subject: str
    variant: str
    backend: str
    precision: str
    span: str
    median_ms: float | None
    p90_ms: float | None
    label: str
    throttled: str
    emulated: str
    board: str


def row_of(result: Result) -> Row:
    """Return a result's row."""
    first = result.latency()
    machine, subject = result.passport, result.subject
    return Row(
        id=result.id, when=result.when, device=result.device, mode=result.mode, state=result.state,
        reason=": ".join(result.reason), subject=subject.name, variant=subject.variant, backend=subject.backend,
        precision=subject.precision, span=first.span if first else "", median_ms=first.median_ms if first else None,
        p90_ms=first.carried_ms(0.9) if first else None, label=first.label if first else "",
        throttled=result.telemetry.throttled if result.telemetry else "unknown", emulated=result.emulated,
        board=str(machine.get("board") or machine.get("cpu", "")),
    )  # fmt: skip


class Index:
    """One table of results."""

    def __init__(self, url: str) -> None:
        self._sql = need("sqlalchemy", extra="host", why="keep results")
        sql = self._sql
        try:
            options = {"connect_args": {"timeout": _BUSY_S}} if url.startswith("sqlite") else {}
            self._engine = sql.create_engine(url, **options)
            floats = {"median_ms", "p90_ms"}
            columns = [
                sql.Column(f.name, sql.Float if f.name in floats else sql.Text, primary_key=f.name == "id")
                for f in fields(Row)
            ]
            self._table = sql.Table("edgekit_results", sql.MetaData(), *columns, sql.Column("body", sql.Text))
            self._make()
        except (sql.exc.SQLAlchemyError, ModuleNotFoundError) as error:
            raise RecipeError(
                f"the index of results cannot be opened: {str(error).splitlines()[0]}",
                hint="Check EDGEKIT_RESULTS_URL and that its driver is installed, such as psycopg.",
            ) from error

    def _make(self) -> None:
        """Make the table where it is missing; another process may make it at the same moment."""
        try:
            self._table.create(self._engine, checkfirst=True)
        except self._sql.exc.DBAPIError:
            if not self._sql.inspect(self._engine).has_table(self._table.name):
                raise

    def add(self, row: Row, body: str) -> None:
        """Add a row; one with the same id stays as it is."""
        try:
            with self._engine.begin() as connection:
                connection.execute(self._table.insert().values(**vars(row), body=body))
        except self._sql.exc.IntegrityError:
            return
        except self._sql.exc.DBAPIError as error:
            # The file of the result is written: the index is made again from it.
            watcher().note(f"the index of results was not written: {str(error).splitlines()[0]}")

    def _read(self, query: Any) -> list[Any]:
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(query))
        except self._sql.exc.DBAPIError as error:
            raise ResourceError(
                f"the index of results cannot be read: {str(error).splitlines()[0]}",
                hint="Check EDGEKIT_RESULTS_URL; an index in a file may be deleted, it is made again.",
            ) from error

    def ids(self) -> list[str]:
        """Return all ids."""
        return [r[0] for r in self._read(self._sql.select(self._table.c.id))]

    def ids_like(self, start: str) -> list[str]:
        """Return the ids that begin so."""
        wanted = self._sql.select(self._table.c.id).where(self._table.c.id.startswith(start, autoescape=True))
        return [r[0] for r in self._read(wanted)]

    def body(self, identity: str) -> str:
        """Return a result's JSON text."""
        wanted = self._sql.select(self._table.c.body).where(self._table.c.id == identity)
        return str(self._read(wanted)[0][0])

    def rows(self, **wanted: str) -> list[Row]:
        """Return rows newest first; each word of `wanted` is a column that must have that value."""
        query = self._sql.select(self._table).order_by(self._table.c.when.desc(), self._table.c.id.desc())
        for column, value in wanted.items():
            if value:
                query = query.where(self._table.c[column] == value)
        found = [dict(r._mapping) for r in self._read(query)]  # noqa: SLF001 - its public name
        return [Row(**{k: v for k, v in one.items() if k != "body"}) for one in found]
