"""`edgekit run`: a bundle on an image, a folder, a video or a camera, or on a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.screen import drawn, reporting, show_json


@click.command("run")
@click.argument("bundle")
@click.argument("source", required=False)
@click.option(
    "--prompt", "prompts", multiple=True, help="What a picture shall show; several times for several."
)
@click.option("--negative", default="", help="What it shall not show.")
@click.option("--seed", default=0, help="Of its noise: the same seed gives the same picture.")
@click.option("--steps", default=0, help="Of the sampler; the bundle's where 0.")
@click.option("--guidance", type=float, help="How far it is pushed to its prompt; 1 for not at all.")
@click.option("--schedule", default="", help="Sampler: ddim, dpm++ or lcm; the bundle's where empty.")
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
    bundle: str, source: str | None, output: Path | None, variant: str | None, threads: int | None,
    trusted_key: Path | None, frames: int, as_json: bool, **words: Any,
) -> None:  # fmt: skip
    """Run BUNDLE on SOURCE: an image, a folder of images, a video, or a camera's index; or on a --prompt.

    BUNDLE is a folder, an .ekb file, or the http:// or https:// address of either.
    Draws the answers into the working folder (or to -o), and with --json prints them instead.

    \b
    Examples:
      edgekit run out/hierlight-yolo-n-mini-x86-cpu/bundle street.jpg
      edgekit run cam.ekb 0 --frames 100 --json
      edgekit run https://example.com/cam.ekb street.jpg
      edgekit run out/glyphs-local/bundle --prompt "a red seven on black" -o seven.png
    """
    if words["prompts"] and source is None:
        _paint(bundle, output, variant, threads, trusted_key, as_json=as_json, **words)
        return
    if source is None or words["prompts"]:
        raise click.UsageError(
            "Give one of SOURCE (of a model that takes frames) and --prompt (of one that makes pictures)."
        )
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


def _paint(
    bundle: str, output: Path | None, variant: str | None, threads: int | None, trusted_key: Path | None, *, as_json: bool,
    **words: Any,
) -> None:  # fmt: skip
    from edgekit.runtime.serve import run_prompts

    with drawn():
        done = run_prompts(
            bundle, output=output, variant=variant, threads=threads, trusted_key=trusted_key, **words
        )
    if as_json:
        show_json(
            {
                "variant": done.variant,
                "pictures": done.answers,
                "written": done.written,
                "median_ms": done.median_ms,
            }
        )
        return
    for row in done.answers:
        click.echo(f"{row['file']}: {row['prompt']} (seed {row['seed']}, {row['steps']} steps)")
    click.echo(
        f"{done.variant}, {done.median_ms:.0f} ms a picture from prompt to pixels (median of {len(done.answers)})"
    )
