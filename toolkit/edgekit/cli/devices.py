"""`edgekit devices`: profiles, and what machines are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.screen import drawn, reporting, show_json, table


@click.group("devices")
def command() -> None:
    """List and show device profiles; add, look at and provision boards."""


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
                    "address": p.ssh,
                    "tags": p.tags,
                }
                for p in found
            ]
        )
        return
    rows = [
        (
            p.name,
            p.title,
            ", ".join(p.backends),
            "measured here" if p.is_machine(machine) else "measured there" if p.reachable else "predicted",
        )
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
    if profile.reachable:
        click.echo(
            f"reached by   {profile.kind or 'ssh'} {profile.ssh}, tags: {', '.join(profile.tags) or '-'}"
        )
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
@click.argument("devices", default="")
@reporting
def probe(devices: str, as_json: bool) -> None:
    """Describe this machine, or DEVICES (names and tag:NAME): the passport that every measurement carries.

    Example: edgekit devices probe --json
    """
    if devices:
        _probe_others(devices, as_json=as_json)
        return
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


def _probe_others(devices: str, *, as_json: bool) -> None:
    from edgekit.devices.profiles import chosen
    from edgekit.jobs.boards import looked_at

    with drawn():
        rows = looked_at(chosen(devices))
    if as_json:
        show_json(rows)
        return
    for row in rows:
        table(("fact", "found"), [(k.replace("_", " "), _words(v)) for k, v in row.items()])
        click.echo()


@command.command("add")
@click.argument("name")
@click.option("--ssh", "address", required=True, help="user@host, or a name of your ssh configuration.")
@click.option("--extends", default="", help="Profile it is one of; found by a look at the board where empty.")
@click.option("--tag", "tags", multiple=True, help="To choose many boards at once: --devices tag:NAME.")
@click.option("--root", default="", help="The agent's folder there instead of ~/.cache/edgekit-agent.")
@click.option("--python", default="", help="The Python there instead of python3.")
@click.option(
    "--lock", default="", help="File that says that the board is taken, the same for all its users."
)
@click.option("--no-probe", is_flag=True, help="Do not look at the board.")
@reporting
def add(name: str, address: str, no_probe: bool, as_json: bool, **options: Any) -> None:
    """Add a board NAME to your devices file, after a look at it over SSH.

    Example: edgekit devices add gate-cam --ssh pi@gate-cam --tag lab
    """
    from edgekit.jobs.boards import add as added

    with drawn():
        path, base = added(name, address=address, probe=not no_probe, **options)
    if as_json:
        show_json({"name": name, "extends": base, "file": path})
    else:
        click.echo(f"{name}: {base}, in {path}")


@command.command("doctor")
@click.argument("devices")
@reporting
def doctor(devices: str, as_json: bool) -> int:
    """Say what DEVICES (names and tag:NAME) have, what they lack and how to get it.

    Example: edgekit devices doctor gate-cam
    """
    from edgekit.devices.profiles import chosen
    from edgekit.jobs.boards import diagnosed

    with drawn():
        found = [diagnosed(p) for p in chosen(devices)]
    if as_json:
        show_json(found)
    for one in found if not as_json else ():
        machine = one["passport"]
        what = machine.get("board") or machine.get("cpu")
        click.echo(
            f"{one['device']}: {what}, {machine['arch']}, {machine.get('libc', '')}, Python {machine['python']}, {one['free_mb']} MB free"
        )
        table(
            ("engine", "state", "what to do"),
            [(e["engine"], e["state"], e["advice"]) for e in one["engines"]],
        )
        for line in one["warnings"]:
            click.echo(click.style(f"warning: {line}", fg="yellow"))
        if one["waiting"] or one["done"]:
            click.echo(
                f"orders: {len(one['waiting'])} waiting, {len(one['done'])} done (edgekit results collect)"
            )
        click.echo()
    return 0 if all(any(e["works"] for e in one["engines"]) for one in found) else 7


@command.command("provision")
@click.argument("device")
@click.option("--engine", default="onnxruntime", show_default=True, help="onnxruntime or openvino.")
@click.option(
    "--wheelhouse",
    type=click.Path(path_type=Path),
    help="Folder of wheels, for boards and hosts without a network.",
)
@click.option("--fill", is_flag=True, help="Download what the board needs into the wheelhouse, and stop.")
@reporting
def provision(device: str, engine: str, wheelhouse: Path | None, fill: bool, as_json: bool) -> None:
    """Put an engine on DEVICE, below the agent's folder: no root and no pip is needed there.

    \b
    Examples:
      edgekit devices provision gate-cam --engine onnxruntime
      edgekit devices provision gate-cam --wheelhouse wheels/ --fill
      edgekit devices provision gate-cam --wheelhouse wheels/
    """
    from edgekit.core.errors import RecipeError
    from edgekit.devices.profiles import one_of
    from edgekit.jobs.boards import provision as provisioned

    if fill and wheelhouse is None:
        raise RecipeError("--fill needs --wheelhouse", hint="Name the folder that gets the wheels.")
    with drawn():
        found = provisioned(one_of(device), engine=engine, wheelhouse=wheelhouse, fill=fill)
    if as_json:
        show_json(found)
    else:
        where = f"in {wheelhouse}" if fill else f"on {device}"
        click.echo(", ".join(f"{k} {v}" for k, v in found.items()) + f" {where}")


@command.command("unlock")
@click.argument("device")
@reporting
def unlock(device: str, as_json: bool) -> None:
    """End the run that holds DEVICE; a lock without a running holder is free by itself.

    Example: edgekit devices unlock gate-cam
    """
    from edgekit.devices.profiles import one_of
    from edgekit.jobs.boards import unlock as unlocked

    with drawn():
        found = unlocked(one_of(device))
    if as_json:
        show_json({"held_by": found})
    else:
        click.echo(f"{device}: was held by {found.get('who', 'someone')}" if found else f"{device}: is free")


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
