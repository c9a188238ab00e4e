"""`edgekit bundle`: look into bundles, verify and pack them."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.screen import reporting, show_json, state_words, table


@click.group("bundle")
def command() -> None:
    """Inspect, verify and pack bundles."""


@command.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@reporting
def inspect(path: Path, as_json: bool) -> None:
    """Show what a bundle holds, what was proven about it, and its licence.

    Example: edgekit bundle inspect out/hierlight-yolo-n-mini-x86-cpu/bundle
    """
    from edgekit.bundle.read import open_bundle

    with open_bundle(path) as opened:
        data, signature = dict(opened.manifest.data), opened.signature
    if as_json:
        show_json({**data, "signature": signature})
        return
    device = data.get("device", {})
    where = "measured on this kind" if device.get("measured") else "not measured on it"
    click.echo(f"{data['name']} for {device.get('title', '?')} ({where}): {data.get('verdict', '?')}")
    size = sum(f["size"] for f in data["files"])
    click.echo(f"{len(data['files'])} files, {size / 1e6:.1f} MB, signature: {signature}")
    click.echo(f"licence: {data.get('licence') or 'not declared by the model'}")
    contract = data["contract"]
    click.echo(
        f"task: {contract['answers']['task']}, classes: {', '.join(contract['answers']['classes']) or '-'}\n"
    )
    rows = [
        (
            v["name"],
            v["engine"],
            _latency(data["receipts"].get(v["name"], {})),
            _accuracy(data["receipts"].get(v["name"], {})),
        )
        for v in data["variants"]
    ]
    table(("variant", "engine", "model latency", "accuracy"), rows)
    if data.get("gates"):
        click.echo()
        gates = [(g["gate"], f"{g['limit']:g}", g["found"], state_words(g["state"])) for g in data["gates"]]
        table(("gate", "limit", "found", "state"), gates)


def _latency(receipt: dict[str, object]) -> str:
    from typing import Any

    measured: Any = receipt.get("latency_measured")
    predicted: Any = receipt.get("latency_predicted")
    if measured:
        return f"{measured[0]['percentiles'][0]['plain_ms']:.2f} ms measured ({measured[0]['label']})"
    return f"{predicted['ms']:.1f} ms predicted" if predicted else "-"


def _accuracy(receipt: dict[str, object]) -> str:
    from typing import Any

    found: Any = receipt.get("accuracy")
    if not found:
        return "-"
    where = "" if found["where"] == "this machine" else f", by {found['where']}"
    return f"{found['metric']} {found['value']:.4f}{where}"


@command.command("verify")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--trusted-key",
    type=click.Path(path_type=Path),
    help="PEM file with the public key that must have signed it.",
)
@reporting
def verify(path: Path, trusted_key: Path | None, as_json: bool) -> None:
    """Check every file of a bundle by its hash, and the signature with a key.

    Example: edgekit bundle verify model.ekb --trusted-key release.pub
    """
    from edgekit.bundle.read import open_bundle

    with open_bundle(path, trusted_key=trusted_key) as opened:
        count, signature = len(opened.manifest.files), opened.signature
    if as_json:
        show_json({"bundle": path, "files": count, "signature": signature, "verified": True})
        return
    click.echo(f"{path}: {count} files verified, signature: {signature}")


@command.command("pack")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The .ekb file; the bundle's name where empty."
)
@reporting
def pack(path: Path, output: Path | None, as_json: bool) -> None:
    """Pack a bundle folder into one .ekb file.

    Example: edgekit bundle pack out/hierlight-yolo-n-mini-x86-cpu/bundle -o cam.ekb
    """
    from edgekit.bundle.read import open_bundle
    from edgekit.bundle.write import pack as write

    with open_bundle(path) as opened:
        name = opened.manifest.name
    done = write(path, output or Path(f"{name}.ekb"))
    if as_json:
        show_json({"bundle": done, "size": done.stat().st_size})
        return
    click.echo(f"{done} written, {done.stat().st_size / 1e6:.1f} MB")
