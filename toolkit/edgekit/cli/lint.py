"""`edgekit lint`: what TensorRT would refuse in an ONNX file, before any build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.screen import reporting, show_json, table

if TYPE_CHECKING:
    from edgekit.jobs.lint import Linted

# Of one rule; --json has all.
_SHOWN = 3
_TONES = {"error": "red", "warning": "yellow", "note": "blue"}


@click.command("lint")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", required=True, help="A device with TensorRT (`edgekit devices list`).")
@click.option(
    "--jetpack", default="", help="JetPack release, such as 6.2; the usual one of the module where empty."
)
@click.option("--tensorrt", default="", help="Version of TensorRT instead of the release's.")
@click.option("--dla", type=int, help="Core of the deep-learning accelerator: its rules, too.")
@click.option(
    "--rtx", is_flag=True, help="Ask TensorRT for RTX's parser and builder, too: edgekit[tensorrt-rtx]."
)
@reporting
def command(model: Path, device: str, rtx: bool, as_json: bool, **options: Any) -> int:
    """Check MODEL, an ONNX file, against what TensorRT on a device reads and builds well.

    \b
    Examples:
      edgekit lint best.onnx --device jetson-orin --jetpack 6.2
      edgekit lint best.onnx --device jetson-xavier-nx --json

    Exit codes: 0 no errors (warnings are shown), 2 bad input, 4 a build would fail or be wrong.
    """
    from edgekit.jobs.lint import linted

    found = linted(model, device, rtx=rtx, **options)
    if as_json:
        show_json({**vars(found), "findings": [vars(f) for f in found.findings], "errors": found.errors})
    else:
        _print(found)
    return 4 if found.errors or found.rtx.state == "rejected" else 0


def _print(found: Linted) -> None:
    click.echo(f"{found.path.name} for {found.target.device}: {found.target.words}")
    rows: list[tuple[str, str, str, str]] = []
    for rule in dict.fromkeys(f.rule for f in found.findings):
        same = [f for f in found.findings if f.rule == rule]
        for one in same[:_SHOWN]:
            severity = click.style(one.severity, fg=_TONES[one.severity])
            rows.append((severity, rule, one.node, f"{one.what}. {one.todo}"))
        if len(same) > _SHOWN:
            rows.append(("", "", f"and {len(same) - _SHOWN} more", ""))
    if rows:
        table(("", "rule", "node", "what, and what to do"), rows)
    else:
        click.echo("nothing found")
    if found.rtx.words != "not asked":
        words = f": {found.rtx.words}" if found.rtx.words else ""
        click.echo(f"TensorRT for RTX {found.rtx.version}: {found.rtx.state}{words}")
