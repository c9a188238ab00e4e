"""`edgekit data`: draw generated data sets, convert others."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.screen import Progress, reporting, show_json
from edgekit.core.watch import watched_by


@click.group("data")
def command() -> None:
    """Make generated data sets."""


@command.command("make")
@click.argument("name")
@click.option("-o", "--output", default="", help="New folder for the set; its name where empty.")
@click.option("--train", default=2000, show_default=True, help="Training images.")
@click.option("--val", default=500, show_default=True, help="Validation images.")
@click.option(
    "--size",
    default=640,
    show_default=True,
    help="Side of the square images in pixels; of thermal-mini the width.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of every scene.")
@reporting
def make(name: str, output: str, train: int, val: int, size: int, seed: int, as_json: bool) -> None:
    """Draw the set NAME in YOLO layout: uav-mini (small vehicles and people from the air) or
    thermal-mini (people, cars, bicycles and lights in a thermal camera, one channel).

    Example: edgekit data make uav-mini --train 2000 --val 500 -o uav-mini
    """
    from edgekit.core.errors import RecipeError
    from edgekit.data.make import make_set

    if train < 1 or val < 1 or not 64 <= size <= 4096:
        raise RecipeError(
            "data make: --train and --val start at 1, --size goes from 64 to 4096", hint="Correct it."
        )
    progress = Progress()
    try:
        with watched_by(progress):
            path = make_set(name, Path(output or name), train=train, val=val, size=size, seed=seed)
    finally:
        progress.close()
    if as_json:
        show_json({"data": path, "train": train, "val": val, "size": size, "seed": seed})
        return
    click.echo(f"{path} written: {train} training and {val} validation images, {size} px")
