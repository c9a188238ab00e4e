"""`edgekit results`: what was measured, when and on what."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.screen import drawn, reporting, show_json, table

if TYPE_CHECKING:
    from edgekit.results.index import Row


@click.group("results")
def command() -> None:
    """List, show, export and plot stored bench results."""


@command.command("list")
@click.option("--device", default="", help="Only of this device.")
@click.option("--subject", default="", help="Only of this model or bundle.")
@click.option("--mode", default="", help="Only of this mode.")
@reporting
def list_results(device: str, subject: str, mode: str, as_json: bool) -> None:
    """List results, newest first, and orders that still wait on a device.

    Example: edgekit results list --device gate-cam
    """
    from edgekit.results.store import Store

    store = Store()
    rows = store.rows(device=device, subject=subject, mode=mode)
    waiting = [{"id": i, "device": d} for i, d in store.pending()]
    if as_json:
        show_json({"results": [asdict(r) for r in rows], "pending": waiting})
        return
    if not rows:
        click.echo("no results yet; make one: edgekit bench model.onnx --mode quick")
    else:
        _print_rows(rows)
    for one in waiting:
        click.echo(f"pending: {one['id']} on {one['device']} (edgekit results collect)", err=True)


def _print_rows(rows: list[Row]) -> None:
    table(
        ("id", "device", "model", "variant", "mode", "p50", "p90", "label", "note"),
        [
            (
                r.id, r.device, r.subject, r.variant or f"{r.backend} {r.precision}".strip(), r.mode, _ms(r.median_ms), _ms(r.p90_ms),
                r.label or r.state, "emulated" if r.emulated else "throttled" if r.throttled == "yes" else r.reason[:60],
            )
            for r in rows
        ],
        right=(5, 6),
    )  # fmt: skip


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"


@command.command("show")
@click.argument("result")
@reporting
def show(result: str, as_json: bool) -> None:
    """Show one RESULT: its id, the beginning of one, or a file.

    Example: edgekit results show 20261125T2101
    """
    from edgekit.cli.bench import print_result
    from edgekit.results.store import Store

    found = Store().load(result)
    if as_json:
        show_json(found)
    else:
        print_result(found)
        rows = [(k.replace("_", " "), str(v)) for k, v in found.passport.items()]
        click.echo()
        table(("passport", ""), rows)


@command.command("export")
@click.argument("results", nargs=-1)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="A .csv, .json or .html file."
)
@click.option("--device", default="", help="Only of this device.")
@reporting
def export(results: tuple[str, ...], output: Path, device: str, as_json: bool) -> None:
    """Write RESULTS (all where none is named) to a CSV, JSON or HTML file.

    Example: edgekit results export -o lab.csv
    """
    from edgekit.jobs.results import exported
    from edgekit.results.store import Store

    count = exported(Store(), results, output, device=device)
    if as_json:
        show_json({"written": output, "results": count})
    else:
        click.echo(f"{output}: {count} results")


@command.command("plot")
@click.argument("results", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("results.html"),
    show_default=True,
    help="The HTML page.",
)
@click.option("--device", default="", help="Only of this device.")
@reporting
def plot(results: tuple[str, ...], output: Path, device: str, as_json: bool) -> None:
    """Draw RESULTS (the newest of each device and model where none is named) in one HTML page.

    Example: edgekit results plot -o lab.html
    """
    from edgekit.jobs.results import plotted
    from edgekit.results.store import Store

    count = plotted(Store(), results, output, device=device)
    if as_json:
        show_json({"written": output, "results": count})
    else:
        click.echo(f"{output}: {count} results")


@command.command("collect")
@reporting
def collect(as_json: bool) -> int:
    """Fetch results of runs whose line was cut; what still runs stays for the next time.

    Example: edgekit results collect
    """
    from edgekit.devices.profiles import profile_of
    from edgekit.jobs.bench import collect as fetch
    from edgekit.results.store import Store

    with drawn():
        found, waiting = fetch(profile_of, Store())
    if as_json:
        show_json({"collected": [r.id for r in found], "waiting": waiting})
    else:
        click.echo(f"{len(found)} collected, {len(waiting)} still out")
        for line in waiting:
            click.echo(f"  {line}")
    return 5 if waiting else 0
