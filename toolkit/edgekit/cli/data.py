"""`edgekit data`: draw generated data sets, convert others, list both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.screen import drawn, reporting, show_json, table


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
    default=0,
    help="Side of the square images in pixels (of thermal-mini the width), samples of a signal; the set's own where 0.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of every scene.")
@reporting
def make(name: str, output: str, train: int, val: int, size: int, seed: int, as_json: bool) -> None:
    """Draw the set NAME (see `edgekit data list`): images with boxes, or signals in a folder a class.

    Example: edgekit data make uav-mini --train 2000 --val 500 -o uav-mini
    """
    from edgekit.core.errors import RecipeError
    from edgekit.data.make import GENERATED, make_set

    if train < 1 or val < 1 or not 0 <= size <= 4096:
        raise RecipeError(
            "data make: --train and --val start at 1, --size goes up to 4096", hint="Correct it."
        )
    with drawn():
        path = make_set(name, Path(output or name), train=train, val=val, size=size, seed=seed)
    if as_json:
        show_json(
            {"data": path, "train": train, "val": val, "size": size or GENERATED[name].size, "seed": seed}
        )
        return
    click.echo(f"{path} written: {train} training and {val} validation samples")


@command.command("list")
@reporting
def listed(*, as_json: bool) -> None:
    """List the sets that edgekit draws, and the published ones that it converts.

    Example: edgekit data list
    """
    from edgekit.jobs.sets import convertible, drawable

    rows = [("draws", n, what) for n, what in drawable().items()]
    rows += [("converts", n, what) for n, what in convertible().items()]
    if as_json:
        show_json({"draws": drawable(), "converts": convertible()})
        return
    table(("", "set", "what it is"), rows)


@command.command("convert")
@click.argument("name")
@click.argument("source")
@click.option("-o", "--output", default="", help="New folder for the set; its name where empty.")
@click.option("--position", default="", help="Of wear and realworld: where the sensor sits.")
@click.option("--window", default=128, show_default=True, help="Of wear and realworld: samples of a window.")
@click.option("--bits", default=12, show_default=True, help="Of wear and realworld: bits of the sensor.")
@click.option("--range-g", default=8.0, show_default=True, help="Of wear and realworld: its range in g.")
@reporting
def convert(name: str, source: str, output: str, as_json: bool, **cut: Any) -> None:
    """Write the published set NAME, as unpacked in folder SOURCE, in edgekit's layout.

    visdrone is VisDrone2019-DET (ten classes), flir is FLIR ADAS v2 thermal (the nine classes of
    MS-YOLO); their images are hard links where the disk allows it, so they take no space twice.
    pascalraw and raw-nod become mosaics of raw values (needs edgekit[raw]), wear and realworld windows
    of an accelerometer's counts, other people for validation than for training.

    Example: edgekit data convert visdrone VisDrone2019 -o visdrone
    """
    from edgekit.jobs.sets import converted

    with drawn():
        done = converted(name, Path(source), Path(output or name), **cut)
    if as_json:
        show_json(done)
        return
    boxes = any(done.boxes.values())
    counts = ", ".join(
        f"{k} {done.images[k]} images with {done.boxes[k]} boxes"
        if boxes
        else f"{k} {done.images[k]} windows"
        for k in done.images
    )
    why = "boxes left out (ignored, or other classes)" if boxes else "windows left out (no label, or gaps)"
    click.echo(f"{done.data} written: {counts}; {done.left_out} {why}")
