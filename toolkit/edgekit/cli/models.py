"""`edgekit models`: the catalogue."""

from __future__ import annotations

import click

from edgekit.cli.screen import reporting, show_json, table


@click.group("models")
def command() -> None:
    """List what the catalogue can build, and count it."""


@command.command("list")
@reporting
def list_models(as_json: bool) -> None:
    """List the models of the catalogue.

    Example: edgekit models list
    """
    from edgekit.jobs.models import listed

    rows = listed()
    if as_json:
        show_json(rows)
        return
    table(("model", "what it is", "needs"), [(r["name"], r["what"], r["needs"]) for r in rows])


@command.command("show")
@click.argument("name")
@click.option("--nc", default=0, help="Number of classes; the model's own (80 for an architecture) where 0.")
@click.option("--imgsz", default=640, show_default=True, help="Image side in pixels.")
@reporting
def show(name: str, nc: int, imgsz: int, as_json: bool) -> None:
    """Count the parameters and GFLOPs of a catalogue model or an ONNX file, fused and unfused.

    Example: edgekit models show yolo11n --nc 10 --imgsz 640 --json
    """
    from edgekit.jobs.models import counted

    found = counted(name, nc=nc, imgsz=imgsz)
    if as_json:
        show_json(found)
        return
    for key, value in found.items():
        click.echo(
            f"{key.replace('_', ' '):<18} {value:,}"
            if isinstance(value, int)
            else f"{key.replace('_', ' '):<18} {value}"
        )
