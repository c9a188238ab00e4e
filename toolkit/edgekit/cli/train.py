"""`edgekit train`: train a recipe's model on its data."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.screen import drawn, reporting, show_json, table


@click.command("train")
@click.argument("recipe")
@click.option("-o", "--output", default="trained", show_default=True, help="Folder that gets the weights.")
@click.option(
    "--work-dir", default=None, help="Folder of checkpoints and step cache instead of edgekit's own."
)
@click.option("--no-cache", is_flag=True, help="Train anew, also where this training is finished already.")
@reporting
def command(recipe: str, output: str, as_json: bool, **options: Any) -> None:
    """Train the model of RECIPE as its `train:` part says; `edgekit compile` does the same on its way.

    A training that was stopped or killed goes on after its last whole epoch when the same command is
    given again (without --no-cache). The best epoch's weights are written as <name>.safetensors, the record of all epochs as
    <name>.json.

    Example: edgekit train ms-yolo-mini -o trained
    """
    from edgekit.jobs.api import train_recipe

    with drawn():
        done = train_recipe(recipe, output=output, **options)
    if as_json:
        show_json({**done.record, "weights": done.weights, "fresh": done.fresh})
        return
    record = done.record
    losses = [k for k in record["history"][0] if k.endswith("_loss")]
    heads = ("epoch", *(k.removesuffix("_loss") for k in losses), "lr", record["metric"], "")
    rows = [
        (
            str(e["epoch"]), *(f"{e[k]:.4f}" for k in losses), f"{e['lr']:.2e}",
            "-" if e["metric"] is None else f"{e['metric']:.4f}",
            "kept" if e["epoch"] == record["best_epoch"] else "",
        )
        for e in record["history"]
    ]  # fmt: skip
    table(heads, rows, right=range(len(heads) - 1))
    judged = f"{record['metric']} on {record['judged_on']} validation images at {record['judged_at']} px"
    seconds = sum(e["seconds"] for e in record["history"])
    click.echo(
        f"\n{record['architecture']}, {record['images']} training images, {seconds:.0f} s"
        + (f", {judged}" if record["judged_on"] else ", not judged (train.val_images: 0)")
    )
    if not done.fresh:
        click.echo("This training was finished before; its weights were kept.")
    click.echo(f"weights  {done.weights}")
