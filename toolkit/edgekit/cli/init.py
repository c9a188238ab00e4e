"""`edgekit init`: a commented recipe for a model."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.screen import reporting, show_json


@click.command("init")
@click.argument("model")
@click.option("--data", default="", help="data.yaml, COCO .json, or uav-mini.")
@click.option("--device", default="local", show_default=True, help="Device of the latency gate.")
@click.option("--latency-ms", type=float, help="Limit for the 90th percentile of the model, milliseconds.")
@click.option("--max-drop", type=float, help="Largest accuracy drop, a share from 0 to 1 (default 0.01).")
@click.option("--trust", is_flag=True, help="Write `trust: true` for a .pt pickle, which can run code.")
@click.option("-o", "--output", default="", help="File to write; the model's name with .yaml where empty.")
@reporting
def command(
    model: str, data: str, device: str, latency_ms: float | None, max_drop: float | None, trust: bool, output: str,
    as_json: bool,
) -> int:  # fmt: skip
    """Write a commented recipe for MODEL: an .onnx or .pt file, or a catalogue name.

    \b
    Examples:
      edgekit init best.pt --data data.yaml --device jetson-orin --latency-ms 15 -o cam.yaml
      edgekit init yolo11n --data uav-mini
    """
    from edgekit.core.errors import RecipeError
    from edgekit.core.files import resource_errors, write_text
    from edgekit.jobs.init import recipe_text
    from edgekit.recipe.check import check_recipe

    path = Path(output or f"{Path(model).stem}.yaml")
    text = recipe_text(
        model,
        data=data,
        device=device,
        latency_ms=latency_ms,
        max_drop=max_drop,
        trust=trust,
        folder=path.parent,
    )
    check_recipe(text, path=path, folder=path.parent)
    if path.exists():
        raise RecipeError(f"{path}: is there already", hint="Choose another file with -o.")
    with resource_errors(path):
        write_text(path, text)
    if as_json:
        show_json({"recipe": path})
        return 0
    click.echo(f"{path} written. Next: edgekit compile {path} --device {device}")
    if model.endswith(".pt") and not trust:
        click.echo(
            "  A .pt is a pickle and runs its author's code: set `trust: true` in it if you trust this one."
        )
    return 0
