"""`edgekit predict`: a latency nobody measured, from published rows."""

from __future__ import annotations

import click

from edgekit.cli.screen import reporting, show_json


@click.command("predict")
@click.argument("model")
@click.option("--device", required=True, help="Profile, or a device as a published row names it.")
@click.option(
    "--backend", default="", help="Engine, in edgekit's or the rows' words; the device's first where empty."
)
@click.option(
    "--precision", default="fp32", show_default=True, help="fp32, fp16, bf16, int8 or a row's word."
)
@click.option("--imgsz", default=0, help="Image side in pixels; 640, or an ONNX file's own, where left out.")
@click.option("--software", default="", help="Edition as a row names it; the newest published where empty.")
@click.option("--power-mode", default="", help="Power mode of a Jetson, such as 30W, or as a row names it.")
@reporting
def command(
    model: str,
    device: str,
    backend: str,
    precision: str,
    imgsz: int,
    software: str,
    power_mode: str,
    as_json: bool,
) -> None:
    """Predict the latency of MODEL: a YOLO of the published rows, a shipped model, or an ONNX file.

    \b
    Examples:
      edgekit predict yolo11s --device jetson-orin --backend tensorrt --precision int8
      edgekit predict yolo11s --device jetson-orin --backend tensorrt --precision fp16 --power-mode 30W
      edgekit predict mine.onnx --device raspberry-pi-5 --backend onnxruntime --json
    """
    from edgekit.jobs.predict import predicted

    found = predicted(
        model,
        device=device,
        backend=backend,
        precision=precision,
        imgsz=imgsz,
        software=software,
        power=power_mode,
    )
    if as_json:
        show_json(found)
        return
    click.echo(
        f"predicted {found['ms']:.1f} ms, band {found['low_ms']:.1f} to {found['high_ms']:.1f} ms (8 of 10 published rows fall into theirs)"
    )
    click.echo(
        f"  {found['model']} {found['imgsz']} {precision} with {found['backend']} on {found['device']}, model inference alone"
    )
    click.echo(f"  from {found['basis']}\n  nearest row: {found['nearest']}")
