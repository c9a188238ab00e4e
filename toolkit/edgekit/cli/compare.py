"""`edgekit compare`: is B slower than A?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.screen import drawn, reporting, show_json, state_words
from edgekit.core.errors import GateError, RecipeError
from edgekit.measure.modes import SPANS

_JUDGED = {"median": ("median",), "p90": ("p90",), "both": ("median", "p90")}


@click.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--device", default="local", show_default=True, help="Where to run them.")
@click.option("--span", type=click.Choice(SPANS), default="model", show_default=True, help="What to time.")
@click.option("--data", default="", help="Images to draw inputs from.")
@click.option("--backend", default="", help="Engine for ONNX files.")
@click.option("--imgsz", default=0, help="Side in pixels where an ONNX file leaves it open.")
@click.option("--variant-a", default="", help="Variant of bundle A.")
@click.option("--variant-b", default="", help="Variant of bundle B.")
@click.option(
    "--judge",
    type=click.Choice(list(_JUDGED)),
    default="median",
    show_default=True,
    help="What a regression is judged by.",
)
@click.option("--force", is_flag=True, help="Compare stored results of unequal machines or settings.")
@click.option("--wait", is_flag=True, help="Wait for a board that is taken.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write a JUnit XML file for CI.")
@reporting
def command(a: str, b: str, judge: str, junit: Path | None, as_json: bool, **options: Any) -> int:
    """Compare B with A: two bundles or model files, run in turns, or two stored results.

    A regression is a slowdown whose whole 95 % interval lies above 3 %. The smallest slowdown that would have been
    found is printed beside it: nothing found means nothing larger than that.

    \b
    Examples:
      edgekit compare old.ekb new.ekb --device gate-cam --junit compare.xml
      edgekit compare 20261125T0901 20261125T1415

    Exit codes: 0 no regression, 2 bad input or unequal machines, 3 regression, 5 a device was lost.
    """
    with drawn():
        found = _found(a, b, options)
    if junit:
        from edgekit.core.files import resource_errors, write_text
        from edgekit.reports.junit import junit as written

        with resource_errors(junit):
            write_text(junit, written(found, judged=_JUDGED[judge]))
    if as_json:
        show_json(found)
    else:
        _print(found)
    failed = any(r.verdict == "regression" for r in found.ratios if r.what in _JUDGED[judge])
    # What an emulator takes says nothing about a board: it is shown and not judged.
    failed = failed and not found.emulated
    return GateError.exit_code if failed else 0


def _found(a: str, b: str, options: dict[str, Any]) -> Any:
    from edgekit.jobs.compare import Pair, compare_runs, compare_stored

    # A JSON file is a stored result; anything else that exists is a bundle or a model.
    runs = [Path(x).exists() and not x.endswith(".json") for x in (a, b)]
    if all(runs):
        from edgekit.devices.profiles import one_of

        pair = Pair(
            a=Path(a), b=Path(b), span=options["span"], data=options["data"], backend=options["backend"],
            imgsz=options["imgsz"], variants=(options["variant_a"], options["variant_b"]), wait=options["wait"],
        )  # fmt: skip
        return compare_runs(pair, None if options["device"] == "local" else one_of(options["device"]))
    if any(runs):
        raise RecipeError(
            f"{a}, {b}: one is a file to run, the other is not",
            hint="Give two bundles or models, or two results.",
        )
    from edgekit.results.store import Store

    return compare_stored(Store(), a, b, span=options["span"], force=options["force"])


def _print(found: Any) -> None:
    from edgekit.reports.comparison_words import ratio_words

    tones = {"regression": "fail", "improvement": "pass"}
    verdict = found.median.verdict
    click.echo(
        click.style(verdict.upper(), bold=True)
        if verdict not in tones
        else state_words(tones[verdict]) + f"  {verdict}"
    )
    click.echo(
        f"A  {found.a.name} {found.a.variant or found.a.backend}\nB  {found.b.name} {found.b.variant or found.b.backend}"
    )
    for ratio in found.ratios:
        click.echo(f"{found.span.replace('_', ' ')} {ratio_words(ratio)}")
    blocks = f"{len(found.blocks_a)} and {len(found.blocks_b)} blocks of {found.runs} runs"
    click.echo(
        click.style(f"{found.how}, {blocks}, block medians spread by {100 * found.spread:.1f} %", dim=True)
    )
    if found.emulated:
        click.echo(
            click.style(f"EMULATED by {found.emulated}: no claim about a board", fg="yellow", bold=True)
        )
    for line in (*found.differences, *found.notes):
        click.echo(click.style(f"note: {line}", dim=True))
