"""Export stored results, and draw them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edgekit.core.digest import plain
from edgekit.core.errors import RecipeError
from edgekit.core.files import json_text, resource_errors, write_text
from edgekit.core.result import Result
from edgekit.reports.boards import boards_page
from edgekit.results.index import Row, row_of
from edgekit.results.store import Store


def chosen(store: Store, names: Sequence[str], *, device: str = "", newest: bool = False) -> list[Result]:
    """Return the named results, or all (`newest`: of each device and model the newest complete one).

    Raises:
        RecipeError: A name fits none, or there are none at all.
    """
    if names:
        return [store.load(n) for n in names]
    rows = store.rows(device=device)
    if newest:
        first: dict[tuple[str, ...], Row] = {}
        for row in rows:
            if row.state == "complete":
                first.setdefault((row.device, row.subject, row.variant, row.backend), row)
        rows = list(first.values())
    if not rows:
        raise RecipeError("there are no results yet", hint="Make one: edgekit bench model.onnx --mode quick")
    return [store.load(r.id) for r in rows]


def exported(store: Store, names: Sequence[str], output: Path, *, device: str = "") -> int:
    """Write results to a .csv (a line each), .json (whole) or .html file; return how many.

    Raises:
        RecipeError: Another kind of file is asked for.
    """
    if output.suffix == ".html":
        return plotted(store, names, output, device=device)
    if output.suffix not in {".csv", ".json"}:
        raise RecipeError(
            f"{output}: edgekit writes .csv, .json and .html", hint="Choose one of them with -o."
        )
    results = chosen(store, names, device=device)
    with resource_errors(output):
        if output.suffix == ".json":
            write_text(output, json_text([plain(r) for r in results]))
        else:
            write_text(output, _lines(results))
    return len(results)


def _lines(results: Sequence[Result]) -> str:
    buffer = io.StringIO()
    rows = [asdict(row_of(r)) for r in results]
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def plotted(store: Store, names: Sequence[str], output: Path, *, device: str = "") -> int:
    """Write one HTML page of results; return how many."""
    results = chosen(store, names, device=device, newest=True)
    with resource_errors(output):
        write_text(output, boards_page(results))
    return len(results)
