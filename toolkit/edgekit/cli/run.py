"""`edgekit run`: a bundle on an image, a folder, a video or a camera."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.screen import drawn, reporting, show_json


@click.command("run")
@click.argument("bundle")
@click.argument("source")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File or folder for what is drawn or written."
)
@click.option("--variant", default=None, help="Variant to use; the best one for this machine where empty.")
@click.option("--threads", type=int, default=None, help="Threads of the engine.")
@click.option(
    "--trusted-key", type=click.Path(path_type=Path), help="PEM file with the key that must have signed it."
)
@click.option("--frames", default=0, help="Frames of a video or camera at most; 0 for all.")
@reporting
def command(
    bundle: str, source: str, output: Path | None, variant: str | None, threads: int | None,
    trusted_key: Path | None, frames: int, as_json: bool,
) -> None:  # fmt: skip
    """Run BUNDLE on SOURCE: an image, a folder of images, a video, or a camera's index.

    BUNDLE is a folder, an .ekb file, or the http:// or https:// address of either.
    Draws the answers into the working folder (or to -o), and with --json prints them instead.

    \b
    Examples:
      edgekit run out/hierlight-yolo-n-mini-x86-cpu/bundle street.jpg
      edgekit run cam.ekb 0 --frames 100 --json
      edgekit run https://example.com/cam.ekb street.jpg
    """
    from edgekit.runtime.serve import run_source

    with drawn():
        done = run_source(
            bundle, source, output=output, draw_answers=not as_json or output is not None, variant=variant,
            threads=threads, trusted_key=trusted_key, frames=frames,
        )  # fmt: skip
    if as_json:
        show_json(
            {
                "variant": done.variant,
                "answers": done.answers,
                "written": done.written,
                "median_ms": done.median_ms,
            }
        )
        return
    for row in done.answers[:10]:
        click.echo(f"{row['source']}: {row['summary']}")
    if len(done.answers) > 10:
        click.echo(f"… and {len(done.answers) - 10} more")
    click.echo(
        f"{done.variant}, {done.median_ms:.1f} ms a frame from pixels to answer (median of {len(done.answers)})"
    )
    for path in done.written[:3]:
        click.echo(f"drawn: {path}")
