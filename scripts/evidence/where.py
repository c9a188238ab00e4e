"""Say what evidence was measured on."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def machine(data: dict[str, Any]) -> str:
    """Return what was measured on, in words."""
    facts = data["machine"]
    isa = " ".join(f for f in facts["isa"] if f.startswith(("avx512_", "avx_vnni", "amx", "asimddp")))
    return f"{facts['cpu']}, {facts['cores_physical']} cores ({isa or 'no AVX-512'})"


def leave(folder: Path, name: str, record: dict[str, Any], *, packages: tuple[str, ...]) -> None:
    """Write a record as NAME-DATE.json with machine, versions and commit."""
    from edgekit.core import versions
    from edgekit.machine.probe import passport

    date = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    said = {
        "machine": passport(),
        "date": date,
        "tools": versions.versions(*packages),
        "commit": commit.stdout.strip(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-{date}.json").write_text(json.dumps({**record, **said}, indent=1) + "\n")
