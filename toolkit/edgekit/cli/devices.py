"""`edgekit devices`: profiles, and what this machine is."""

from __future__ import annotations

import click

from edgekit.cli.screen import reporting, show_json, table


@click.group("devices")
def command() -> None:
    """List and show device profiles; probe this machine."""


@command.command("list")
@reporting
def list_devices(as_json: bool) -> None:
    """List every device edgekit can compile for.

    Example: edgekit devices list
    """
    from edgekit.devices.profiles import profiles
    from edgekit.machine.probe import passport

    machine = passport()
    found = profiles().values()
    if as_json:
        show_json(
            [
                {
                    "name": p.name,
                    "title": p.title,
                    "aliases": p.aliases,
                    "backends": p.backends,
                    "measured_here": p.is_machine(machine),
                }
                for p in found
            ]
        )
        return
    rows = [
        (p.name, p.title, ", ".join(p.backends), "measured here" if p.is_machine(machine) else "predicted")
        for p in found
    ]
    table(("device", "what it is", "engines", "latency"), rows)


@command.command("show")
@click.argument("name")
@reporting
def show(name: str, as_json: bool) -> None:
    """Show a device: engines, other names, and facts with source and certainty.

    Example: edgekit devices show jetson-orin-nano
    """
    from edgekit.devices.profiles import profile_of

    profile = profile_of(name, where="device")
    if as_json:
        show_json(profile)
        return
    click.echo(f"{profile.name}: {profile.title}")
    click.echo(f"other names  {', '.join(profile.aliases) or '-'}")
    for backend, precisions in profile.backends.items():
        click.echo(f"engine       {backend}: {', '.join(precisions)}")
    for unit, why in profile.others.items():
        click.echo(f"{unit:<12} {why}")
    if profile.note:
        click.echo(profile.note)
    if profile.facts:
        click.echo("\ncertainty: A vendor, B third party, C arithmetic from those, D from memory")
        rows = [
            (f.key, f"{f.value} {f.unit}".strip(), f.condition, f.certainty, f.source) for f in profile.facts
        ]
        table(("fact", "value", "condition", "", "source"), rows)


@command.command("probe")
@reporting
def probe(as_json: bool) -> None:
    """Describe this machine: the passport that every measurement carries.

    Example: edgekit devices probe --json
    """
    from edgekit.core.lazy import have
    from edgekit.machine.probe import passport

    machine = passport()
    names = []
    if have("yaml") and have("pydantic"):
        from edgekit.devices.profiles import profiles

        names = [p.name for p in profiles().values() if p.is_machine(machine)]
    if as_json:
        show_json({**machine, "profiles": names})
        return
    rows = [(k.replace("_", " "), _words(v)) for k, v in machine.items()]
    table(("fact", "found"), [*rows, ("profiles", ", ".join(names))])


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
