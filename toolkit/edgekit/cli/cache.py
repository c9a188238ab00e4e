"""`edgekit cache`: what finished steps take, and their removal."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.screen import reporting, show_json, table


@click.group("cache")
def command() -> None:
    """Show or clear the kept steps."""


def _cache(work_dir: str | None):  # type: ignore[no-untyped-def]
    from edgekit.core.cache import StepCache
    from edgekit.core.places import cache_home

    return StepCache(root=Path(work_dir) if work_dir else cache_home())


@command.command("show")
@click.option("--work-dir", default=None, help="Folder of the step cache instead of edgekit's own.")
@reporting
def show(work_dir: str | None, as_json: bool) -> None:
    """Show kept steps by kind, with their size.

    Example: edgekit cache show
    """
    cache = _cache(work_dir)
    kinds: dict[str, list[int]] = {}
    for name, _, size in cache.entries():
        kinds.setdefault(name, []).append(size)
    if as_json:
        show_json(
            {"folder": cache.root, "steps": {k: {"count": len(v), "bytes": sum(v)} for k, v in kinds.items()}}
        )
        return
    rows = [(k, str(len(v)), f"{sum(v) / 1e6:.1f}") for k, v in sorted(kinds.items())]
    table(
        ("step", "kept", "MB"),
        [*rows, ("all", str(sum(map(len, kinds.values()))), f"{sum(map(sum, kinds.values())) / 1e6:.1f}")],
        right=(1, 2),
    )
    click.echo(f"\nin {cache.root}")


@command.command("clear")
@click.option("--work-dir", default=None, help="Folder of the step cache instead of edgekit's own.")
@reporting
def clear(work_dir: str | None, as_json: bool) -> None:
    """Remove every kept step; the next run makes them again.

    Example: edgekit cache clear
    """
    freed = _cache(work_dir).clear()
    if as_json:
        show_json({"freed_bytes": freed})
        return
    click.echo(f"{freed / 1e6:.1f} MB freed")
