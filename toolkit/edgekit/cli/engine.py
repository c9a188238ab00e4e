"""`edgekit engine`: TensorRT engines on the board that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.screen import drawn, reporting, show_json, table

_DEVICE = click.option(
    "--device", default="", help="A board that `edgekit devices add` knows; this one where empty."
)


@click.group("engine")
def command() -> None:
    """Build, list and clear TensorRT engines on this board, or on one that the host reaches."""


@command.command("build")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--variant", default="", help="Variant of the bundle; the first with an engine to build where empty."
)
@_DEVICE
@click.option("--wait", is_flag=True, help="Wait for a board that is taken.")
@click.option("--limit-s", default=3600.0, show_default=True, help="Longest time of one attempt in seconds.")
@reporting
def build(bundle: Path, variant: str, device: str, wait: bool, limit_s: float, as_json: bool) -> None:
    """Build the engine of BUNDLE on this board or on DEVICE, or find it in the cache there.

    Where memory runs out it is tried again with less workspace, then the fp16 twin, then onnxruntime's
    TensorRT and CUDA providers; every attempt is shown.

    \b
    Examples:
      edgekit engine build cam.ekb
      edgekit engine build out/cam-jetson-orin/bundle --device gate-orin

    Exit codes: 0 built or found, 2 bad input, 4 nothing could be built, 7 no driver or no TensorRT,
    8 no space, or another process builds it.
    """
    from edgekit.jobs.engine import built

    with drawn():
        found = built(bundle, device=device, variant=variant, limit_s=limit_s, wait=wait)
    if as_json:
        show_json(found)
        return
    for name, one in {"": found, **found["parts"]}.items():
        _show(one, f" of {name}" if name else "")


def _show(found: dict[str, Any], whose: str) -> None:
    how = (
        f"built in {found['seconds']:g} s"
        if found["fresh"]
        else f"found, built {found['when']}"
        if found["when"]
        else "found"
    )
    click.echo(f"{found['precision']} engine of {found['model']}{whose}: {how}, {found['mb']:g} MB")
    click.echo(f"  TensorRT {found['tensorrt']}, {found['gpu']}\n  {found['plan']}")
    for one in found["attempts"]:
        room = f" with {one['workspace_mb']} MB" if one["workspace_mb"] else ""
        click.echo(f"  tried {one['precision']}{room}: {one['outcome']}")
    if found["warning"]:
        click.echo(click.style(f"  {found['warning']}", fg="yellow"))


@command.command("list")
@_DEVICE
@reporting
def show(device: str, as_json: bool) -> None:
    """List the engines in this user's cache, here or on DEVICE.

    \b
    Example:
      edgekit engine list --json
    """
    from edgekit.jobs.engine import listed

    found = listed(device)
    if as_json:
        show_json(found)
    elif not found:
        click.echo("no engines yet: `edgekit engine build <bundle>`")
    else:
        rows = [
            (
                e["key"][:12],
                e["precision"],
                f"{e['mb']:g}",
                e["tensorrt"],
                e["gpu"],
                e["when"],
                f"{e['seconds']:g} s",
            )
            for e in found
        ]
        table(("key", "precision", "MB", "TensorRT", "GPU", "built", "took"), rows, right=(2,))


@command.command("clear")
@click.argument("keys", nargs=-1)
@_DEVICE
@reporting
def clear(keys: tuple[str, ...], device: str, as_json: bool) -> None:
    """Remove engines by the beginnings of their KEYS; all of them, and the timing caches, without one.

    \b
    Examples:
      edgekit engine clear
      edgekit engine clear 3fa9c1
    """
    from edgekit.jobs.engine import cleared

    count = cleared(keys, device)
    if as_json:
        show_json({"removed": count})
    else:
        click.echo(f"removed {count} engines")
