"""`edgekit data`: draw generated data sets, convert others."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.screen import drawn, reporting, show_json


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
    """Draw the set NAME in YOLO layout.

    uav-mini shows small vehicles and people from the air, thermal-mini people, cars, bicycles and
    lights in a thermal camera (one channel).

    Example: edgekit data make uav-mini --train 2000 --val 500 -o uav-mini
    """
    from edgekit.core.errors import RecipeError
    from edgekit.data.make import make_set

    if train < 1 or val < 1 or not 64 <= size <= 4096:
        raise RecipeError(
            "data make: --train and --val start at 1, --size goes from 64 to 4096", hint="Correct it."
        )
    with drawn():
        path = make_set(name, Path(output or name), train=train, val=val, size=size, seed=seed)
    if as_json:
        show_json({"data": path, "train": train, "val": val, "size": size, "seed": seed})
        return
    click.echo(f"{path} written: {train} training and {val} validation images, {size} px")


@command.command("convert")
@click.argument("name")
@click.argument("source")
@click.option("-o", "--output", default="", help="New folder for the set; its name where empty.")
@reporting
def convert(name: str, source: str, output: str, as_json: bool) -> None:
    """Write the published set NAME, as unpacked in folder SOURCE, in YOLO layout.

    visdrone is VisDrone2019-DET (ten classes), flir is FLIR ADAS v2 thermal (the nine classes of
    MS-YOLO). Images are hard links where the disk allows it, so they take no space twice.

    Example: edgekit data convert visdrone VisDrone2019 -o visdrone
    """
    from edgekit.core.errors import RecipeError
    from edgekit.core.plugins import suggestion
    from edgekit.data.convert import LAYOUTS
    from edgekit.data.convert import convert as converted

    if name not in LAYOUTS:
        raise RecipeError(f"data convert: no set {name!r}", hint=suggestion(name, LAYOUTS))
    with drawn():
        done = converted(name, Path(source), Path(output or name))
    if as_json:
        show_json(done)
        return
    counts = ", ".join(f"{k} {done.images[k]} images with {done.boxes[k]} boxes" for k in done.images)
    click.echo(f"{done.data} written: {counts}; {done.left_out} boxes left out (ignored, or other classes)")
