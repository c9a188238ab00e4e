"""Run `scripts/demo` in a fresh clone with an empty home folder; keep what it printed and how long it took.

python scripts/evidence/demo.py
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import tempfile
import time
from pathlib import Path

from edgekit.core.files import write_text

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    """Clone, run, keep."""
    with tempfile.TemporaryDirectory() as folder:
        clone, home = Path(folder) / "edgekit", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        began = time.perf_counter()
        done = subprocess.run(
            ["scripts/demo"], cwd=clone, env={"HOME": str(home), "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        minutes = (time.perf_counter() - began) / 60
        text = done.stdout.replace(f"{clone}/", "")
    today = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d")
    text += f"\n({minutes:.1f} minutes with the install, {today})\n"
    write_text(ROOT / "docs" / "evidence" / f"demo-{today}.txt", text)
    print(text)


if __name__ == "__main__":
    main()
