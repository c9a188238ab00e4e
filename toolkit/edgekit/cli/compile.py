"""`edgekit compile`: recipe in, measured and verified bundle out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.screen import drawn, reporting, show_json, state_words, table

if TYPE_CHECKING:
    from edgekit.core.outcome import Outcome
    from edgekit.jobs.ask import Ask


@click.command("compile")
@click.argument("recipe")
@click.option(
    "--device", default="local", show_default=True, help="Profile to compile for (`edgekit devices list`)."
)
@click.option("-o", "--output", default="out", show_default=True, help="Folder that gets <recipe>-<device>/.")
@click.option("--precision", default="", help="Only variants of this precision: fp32, fp16, bf16 or int8.")
@click.option("--imgsz", default=0, help="Image side in pixels instead of the recipe's.")
@click.option("--quick", is_flag=True, help="200 validation images and the smoke bench.")
@click.option(
    "--require-measured", is_flag=True, help="Fail (exit 3) where a gate was not measured or judged."
)
@click.option("--data", default="", help="data.yaml or COCO file, where RECIPE is a model file.")
@click.option("--latency-ms", type=float, help="Gate for the p90 of the model, where RECIPE is a model file.")
@click.option("--max-drop", type=float, help="Gate for the accuracy drop, where RECIPE is a model file.")
@click.option("--trust", is_flag=True, help="Load a .pt pickle, which can run code, where RECIPE is one.")
@click.option("--work-dir", default=None, help="Folder of the step cache instead of edgekit's own.")
@click.option("--no-cache", is_flag=True, help="Repeat every step.")
@click.option(
    "--sign-key", default=None, help="PEM file with an Ed25519 private key to sign the bundle with."
)
@click.option(
    "--jetpack", default="", help="JetPack of a Jetson, such as 6.2; else the board's own or the usual one."
)
@click.option(
    "--tensorrt", default="", help="TensorRT of a Jetson, such as 11.4.1, instead of the release's."
)
@click.option("--dla", type=int, help="Core of a Jetson's deep-learning accelerator to compile for: 0 or 1.")
@click.option("--weak", is_flag=True, help="Leave types to the flags of TensorRT 10 instead of the file.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be done, and stop.")
@reporting
def command(
    recipe: str, device: str, data: str, latency_ms: float | None, max_drop: float | None, trust: bool,
    dry_run: bool, as_json: bool, **options: Any,
) -> int:  # fmt: skip
    """Compile RECIPE for a device: a recipe file, a shipped recipe's name, or a model (.onnx, .pt).

    \b
    Examples:
      edgekit compile hierlight-yolo-n-mini --device x86-cpu --quick
      edgekit compile cam.yaml --device jetson-orin -o out/
      edgekit compile best.pt --trust --data data.yaml --device local

    Exit codes: 0 verified bundle, 2 bad input, 3 a gate failed, 4 a contract broken, 7 something
    not installed, 8 no space, permission or lock.
    """
    from edgekit.jobs.api import ask_for, checked_recipe

    checked = checked_recipe(
        recipe, data=data, device=device, latency_ms=latency_ms, max_drop=max_drop, trust=trust
    )
    ask = ask_for(checked, device=device, **options)
    if dry_run:
        return _dry_run(ask, as_json=as_json)
    from edgekit.jobs.compile import compile_for
    from edgekit.jobs.report_data import report_data

    with drawn():
        done = compile_for(ask)
    if as_json:
        show_json({**report_data(done.outcome), "bundle": done.bundle, "report": done.report})
    else:
        print_outcome(done.outcome)
        click.echo(f"\nbundle  {done.bundle}\nreport  {done.report}")
    return done.outcome.exit_code


def _dry_run(ask: Ask, *, as_json: bool) -> int:
    from edgekit.jobs.before import refuse_early

    refuse_early(ask)
    plan = {
        "recipe": ask.checked.name,
        "device": ask.profile.name,
        "measured_here": ask.here,
        "passes": [s.name for s in ask.checked.steps],
        "engines": {b: list(p) for b, p in ask.profile.backends.items()},
        "gates": ask.checked.gates(ask.profile.name),
        "bench": ask.mode,
        "output": str(ask.folder),
    }
    if ask.target:
        plan["target"] = ask.target.words
    if as_json:
        show_json(plan)
        return 0
    how = "measured on this machine" if ask.here else "predicted: this machine is another one"
    click.echo(f"{plan['recipe']} for {ask.profile.title} ({how})")
    click.echo(f"passes   {', '.join(s.name for s in ask.checked.steps) or 'none'}")
    engines = [f"{b} ({' '.join(p)})" for b, p in ask.profile.backends.items()]
    gates = [f"{k} {v:g}" for k, v in ask.checked.gates(ask.profile.name).items()]
    click.echo(f"engines  {', '.join(engines)}\ngates    {', '.join(gates) or 'none'}")
    if ask.target:
        click.echo(f"target   {ask.target.words}")
    click.echo(f"output   {ask.folder}\nNothing was done (--dry-run).")
    return 0


def print_outcome(outcome: Outcome) -> None:
    """Print the verdict table and what stands behind it."""
    from edgekit.reports.growing import grows_words
    from edgekit.reports.link import link_words
    from edgekit.reports.painting import paints_words, slim_words
    from edgekit.reports.words import accuracy_words, headline, ladder_words, latency_words, machine_words

    tone = "red" if outcome.exit_code else "yellow" if "not" in outcome.words else "green"
    click.echo(click.style(outcome.words.upper(), fg=tone, bold=True) + f"  {headline(outcome)}")
    click.echo(click.style(f"      {machine_words(outcome)}\n", dim=True))
    if outcome.verdicts:
        rows = [(v.gate, f"{v.limit:g}", v.found, state_words(v.state), v.detail) for v in outcome.verdicts]
        table(("gate", "limit", "found", "state", "what was compared"), rows, right=(1,))
        click.echo()
    if outcome.ways_in:
        ways = [(w.what, w.latency, w.accuracy or "-", "fits" if w.fits else "") for w in outcome.ways_in]
        table(("ways in", "latency", "accuracy", ""), ways)
        click.echo()
    variants = [
        (v.name, v.style or "-", latency_words(v), accuracy_words(v), f"{v.size_mb:.1f}", v.note or "")
        for v in outcome.variants
    ]
    table(("variant", "style", "model latency", "accuracy", "MB", ""), variants, right=(2, 4))
    if outcome.ladder:
        click.echo(click.style(f"parity: {ladder_words(outcome.ladder)}", dim=True))
    if outcome.link:
        click.echo(click.style(f"link: {link_words(outcome.link)}", dim=True))
    if outcome.grows:
        click.echo(click.style(f"grows: {grows_words(outcome.grows)}", dim=True))
    if "slimdiff" in outcome.passes:
        click.echo(click.style(f"slimmed: {slim_words(outcome.passes['slimdiff'])}", dim=True))
    if outcome.paints:
        click.echo(click.style(f"pictures: {paints_words(outcome.paints)}", dim=True))
    for note in outcome.notes:
        click.echo(click.style(f"note: {note}", dim=True))
