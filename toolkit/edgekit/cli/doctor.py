"""`edgekit doctor`: what is installed, what is missing, what does not fit together."""

from __future__ import annotations

import click

from edgekit.cli.screen import reporting, show_json, table


@click.command("doctor")
@reporting
def command(as_json: bool) -> None:
    """Say what is installed, what is missing and what does not fit together.

    Example: edgekit doctor
    """
    from edgekit.jobs.doctor import examined

    found = examined()
    if as_json:
        show_json(found)
        return
    table(
        ("package", "version", "extra", "for"),
        [(p["package"], p["version"] or "missing", p["extra"], p["use"]) for p in found["packages"]],
    )
    click.echo()
    for key, value in found["places"].items():
        click.echo(f"{key:<10} {value}")
    for warning in found["warnings"]:
        click.echo(click.style(f"warning: {warning}", fg="yellow"))
    if not found["warnings"]:
        click.echo("nothing to warn of")
