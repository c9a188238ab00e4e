"""`edgekit bench`: latency of a bundle or model file, here or on devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.screen import drawn, reporting, show_json, state_words, table
from edgekit.core.errors import GateError, RecipeError
from edgekit.measure.modes import MODES, SPANS

if TYPE_CHECKING:
    from edgekit.core.result import Result
    from edgekit.jobs.bench import Request


@click.command("bench")
@click.argument("what", type=click.Path(path_type=Path))
@click.option(
    "--device",
    default="local",
    show_default=True,
    help="Where: this machine, or a device that `edgekit devices add` knows.",
)
@click.option("--devices", default="", help="Many at once: names and tag:NAME, with commas between.")
@click.option(
    "--mode", type=click.Choice(list(MODES)), default="standard", show_default=True, help="How much to run."
)
@click.option("--data", default="", help="Images to draw inputs from: a folder, a data.yaml or a COCO file.")
@click.option("--span", type=click.Choice(SPANS), help="Measure this one alone.")
@click.option("--fps", default=30.0, show_default=True, help="Frames a second of mode paced.")
@click.option("--seconds", default=0.0, help="Measured seconds instead of the mode's.")
@click.option("--runs", default=0, help="Runs instead of the mode's.")
@click.option(
    "--threads", default=0, help="Threads of the engine instead of the bundle's or the engine's own choice."
)
@click.option("--cpus", default="", help="Cores to pin to, such as 0,1.")
@click.option("--sweep", is_flag=True, help="Try thread counts and pinning on this machine, in turns.")
@click.option(
    "--variant", default="", help="Variant of a bundle; the one that suits the machine where empty."
)
@click.option("--backend", default="", help="Engine for an ONNX file: onnxruntime or openvino.")
@click.option(
    "--imgsz", default=0, help="Side in pixels where an ONNX file leaves it open; 640 where not given."
)
@click.option("--layers", is_flag=True, help="Profile each layer afterwards.")
@click.option("--hz", default=5.0, show_default=True, help="Readings of the sensors a second, 0 to 10.")
@click.option("--no-rest", is_flag=True, help="Leave out the rests that idle power is measured in.")
@click.option("--seed", default=0, help="Of the inputs.")
@click.option("--wait", is_flag=True, help="Wait for a board that is taken.")
@reporting
def command(what: Path, device: str, devices: str, sweep: bool, as_json: bool, **options: Any) -> int:
    """Benchmark WHAT: a bundle, an ONNX file, or an OpenVINO IR (.xml).

    Percentiles are printed only where the runs carry them. Every result is stored with the passport of the
    machine: `edgekit results list`.

    \b
    Examples:
      edgekit bench out/hierlight-yolo-n-mini-x86-cpu/bundle --mode quick
      edgekit bench yolo.onnx --device gate-cam --mode soak --seconds 3600
      edgekit bench cam.ekb --devices tag:lab --json
      edgekit profile yolo.onnx --mode quick --layers

    Exit codes: 0 measured, 2 bad input, 5 a device was not reached or lost, 7 an engine is missing, 8 no space or
    the board is taken.
    """
    request = _request(what, options)
    with drawn():
        if sweep and (devices or device != "local"):
            raise RecipeError("--sweep runs on this machine alone", hint="Leave --device and --devices out.")
        if sweep:
            return _sweep(request, as_json=as_json)
        return _many(devices, request, as_json=as_json) if devices else _one(device, request, as_json=as_json)


def _request(what: Path, options: dict[str, Any]) -> Request:
    from edgekit.jobs.bench import Request

    if not 0 <= options["hz"] <= 10:
        raise RecipeError(f"--hz: {options['hz']:g} is not 0 to 10", hint="Sensors need no more.")
    if not 0 < options["fps"] < 1e6:
        raise RecipeError(f"--fps: {options['fps']:g} is no rate", hint="Give frames a second, such as 30.")
    for key in ("seconds", "runs", "threads"):
        if not 0 <= options[key] < 1e9:
            raise RecipeError(f"--{key}: {options[key]:g} makes no sense", hint="Give 0 or more.")
    try:
        cpus = [int(c) for c in options["cpus"].split(",") if c]
    except ValueError:
        raise RecipeError(
            f"--cpus: {options['cpus']!r} is no list of cores", hint="Write it so: 0,1"
        ) from None
    kept = ("mode", "fps", "seconds", "runs", "threads", "seed", "hz", "layers")
    settings = {k: options[k] for k in kept} | {"cpus": cpus, "rest": not options["no_rest"]}
    if options["span"]:
        settings["spans"] = [options["span"]]
    return Request(
        what=what, settings=settings, data=options["data"], variant=options["variant"], backend=options["backend"],
        wait=options["wait"], imgsz=options["imgsz"],
    )  # fmt: skip


def _one(device: str, request: Request, *, as_json: bool) -> int:
    from edgekit.jobs.bench import bench_here, bench_on
    from edgekit.results.store import Store

    store = Store()
    if device == "local":
        result = bench_here(request)
        store.keep(result)
    else:
        from edgekit.devices.profiles import one_of

        result = bench_on(one_of(device), request, store)
    if as_json:
        show_json(result)
    else:
        print_result(result)
    return 0


def _many(devices: str, request: Request, *, as_json: bool) -> int:
    from edgekit.devices.profiles import chosen
    from edgekit.jobs.bench import bench_many
    from edgekit.results.store import Store

    results = bench_many(chosen(devices), request, Store())
    if as_json:
        show_json(results)
    else:
        rows = [
            (r.device, r.state, *_figures(r), ": ".join(r.reason) or "; ".join(r.notes[:1])) for r in results
        ]
        table(("device", "state", "p50", "p90", "label", "note"), rows, right=(2, 3))
    failed = [r for r in results if r.state == "failed"]
    from edgekit.core import errors

    return max((getattr(errors, r.reason[0], GateError).exit_code for r in failed), default=0)


def _figures(result: Result) -> tuple[str, str, str]:
    found = result.latency()
    if not found:
        return "-", "-", "-"
    p90 = found.carried_ms(0.9)
    return f"{found.median_ms:.2f} ms", "n/a" if p90 is None else f"{p90:.2f} ms", found.label


def _sweep(request: Request, *, as_json: bool) -> int:
    from edgekit.jobs.bench import sweep

    rows = sweep(request)
    if as_json:
        show_json([{"way": n, "median_ms": m, "p90_ms": p} for n, m, p in rows])
        return 0
    table(
        ("threads and cores", "p50", "p90"),
        [(n, f"{m:.2f} ms", f"{p:.2f} ms") for n, m, p in rows],
        right=(1, 2),
    )
    click.echo("measured in turns on this machine, one process each; set them with --threads and --cpus")
    return 0


def print_result(result: Result) -> None:
    """Print a result for people."""
    from edgekit.reports.result_words import energy_words, subject_words, telemetry_words

    click.echo(f"{subject_words(result)}  {click.style(result.id, dim=True)}")
    if result.emulated:
        click.echo(
            click.style(f"EMULATED by {result.emulated}: no claim about a board", fg="yellow", bold=True)
        )
    if result.state != "complete":
        click.echo(f"{state_words('fail')}  {': '.join(result.reason)}")
        return
    heads: list[str] = ["span", "runs", "label"]
    if result.spans:
        heads += [w for t in result.spans[0].tails for w in (f"p{100 * t.share:g}", "99 % bound")]
    table(heads, [_span_row(s) for s in result.spans], right=range(3, len(heads)))
    start = {k.removesuffix("_ms").replace("_", " "): v for k, v in result.start.items() if k.endswith("_ms")}
    click.echo("\nstart    " + ", ".join(f"{k} {v:.1f} ms" for k, v in start.items()))
    click.echo(f"memory   {result.start.get('memory_mb', 0):.0f} MB more at the peak than before loading")
    click.echo(f"sensors  {telemetry_words(result.telemetry)}")
    click.echo(f"energy   {energy_words(result.energy)}")
    if result.paced:
        click.echo(
            f"paced    {result.paced.missed} of {result.paced.frames} frames late at {result.paced.fps:g} fps"
        )
    if result.layers:
        click.echo()
        rows = [
            (x.name, x.op, x.dtype, x.unit, f"{100 * x.share:.1f} %")
            for x in sorted(result.layers, key=lambda x: -x.share)[:15]
        ]
        table(("slowest layers", "operator", "ran in", "unit", "time"), rows, right=(4,))
    for note in result.notes:
        click.echo(click.style(f"note: {note}", dim=True))


def _span_row(span: Any) -> list[str]:
    row = [span.span.replace("_", " "), str(span.runs), span.label]
    for tail in span.tails:
        enough = tail.bound_ms is not None
        row += [
            f"{tail.plain_ms:.2f} ms" if enough else "n/a",
            f"{tail.bound_ms:.2f} ms" if enough else f"need {tail.need}, have {tail.have}",
        ]
    return row
