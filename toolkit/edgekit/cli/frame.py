"""The frame of all commands: the group, how errors are shown, and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from edgekit import __version__
from edgekit.cli import (
    bench,
    bundle,
    cache,
    compare,
    compile,  # noqa: A004 - the command is called so
    data,
    devices,
    doctor,
    engine,
    init,
    lint,
    models,
    predict,
    recipes,
    results,
    train,
)
from edgekit.cli import (
    run as run_command,
)
from edgekit.core.errors import INTERRUPTED, EdgekitError
from edgekit.core.files import resource_error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="edgekit %(version)s")
def edgekit() -> None:
    """Compile, validate and ship neural networks for edge devices.

    One recipe in; the fastest model that keeps its accuracy on a named device out, proven by
    measurement, shipped as a bundle that an app can trust.

    \b
    Start:    edgekit compile hierlight-yolo-n-mini --device x86-cpu --quick
    Your own: edgekit init best.pt --data data.yaml --device jetson-orin -o cam.yaml
    """


for _module in (
    compile,
    bench,
    compare,
    results,
    train,
    init,
    recipes,
    devices,
    models,
    data,
    predict,
    lint,
    engine,
    bundle,
    run_command,
    cache,
    doctor,
):
    edgekit.add_command(_module.command)

# Two words for one thing: people who come from engines' own tools look for a profiler.
edgekit.add_command(bench.command, "profile")


def run(arguments: list[str]) -> int:
    """Run a command; return its exit code."""
    debug = "--debug" in arguments
    try:
        with _terminable():
            result = edgekit.main(args=arguments, prog_name="edgekit", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.UsageError as error:
        return _usage(error, arguments)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; finished steps are kept, the next run goes on from there", err=True)
        return INTERRUPTED
    except EdgekitError as error:
        return _planned(error, arguments, debug=debug)
    except BrokenPipeError:
        # The reader has gone, as in `edgekit devices list | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        planned = resource_error(error, Path(error.filename or "."))
        return _planned(planned, arguments, debug=debug) if planned else _bug(error, debug=debug)
    except Exception as error:  # noqa: BLE001 - the last place: a bug is shown as one
        return _bug(error, debug=debug)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _usage(error: click.UsageError, arguments: list[str]) -> int:
    path = error.ctx.command_path if error.ctx else "edgekit"
    message, hint = error.format_message(), f"See `{path} --help`."
    _show("RecipeError", message, hint, 2, arguments)
    return 2


def _planned(error: EdgekitError, arguments: list[str], *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    _show(type(error).__name__, error.message, error.hint, error.exit_code, arguments)
    return error.exit_code


def _show(kind: str, message: str, hint: str, code: int, arguments: list[str]) -> None:
    if "--json" in arguments:
        body = {"error": {"kind": kind, "message": message, "hint": hint, "exit_code": code}}
        click.echo(json.dumps(body, indent=2, ensure_ascii=False))
    lines = message.splitlines()
    label = click.style("error:", fg="red", bold=True)
    click.echo(
        f"{label} {lines[0]}" if len(lines) == 1 else f"{label}\n" + "\n".join(f"  {x}" for x in lines),
        err=True,
    )
    if hint:
        click.echo(f"  {hint}", err=True)


def _bug(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    click.echo(f"bug: {type(error).__name__}: {error} ({place})", err=True)
    click.echo("  This is a fault of edgekit. Run again with --debug and report what it prints.", err=True)
    return 1
