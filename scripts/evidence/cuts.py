"""Cut the line at random moments of benches over SSH: no result may be lost and none stored twice.

    python scripts/evidence/cuts.py            # 100 cuts; about 25 minutes
    python scripts/evidence/cuts.py --slice    # 3, for CI; writes nothing

Each trial starts a bench on a board behind a real sshd, ends the server with all its sessions at a random moment,
and starts it again 0.2 to 20 s later: within 12 s the command itself goes on, after that `edgekit results collect`
fetches the result. Then exactly one result of that trial must be stored, complete. Resumable.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from detectors import commit
from options import options_of

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.sshd import Sshd, write_devices  # noqa: E402 - of this checkout

from edgekit.core.files import write_json  # noqa: E402
from edgekit.machine.probe import passport  # noqa: E402

KEPT = ROOT / "docs" / "evidence" / "cuts.json"
MODEL = ROOT / "models" / "uav-yolov8n.onnx"
BENCH = (
    "bench", str(MODEL), "--imgsz", "64", "--device", "board0", "--mode", "smoke", "--runs", "64", "--seconds", "1",
    "--span", "model", "--threads", "1", "--wait",
)  # fmt: skip
_LONGEST_CUT_S, _RUN_S = 20.0, 9.0


class Cuts:
    """One server, one board, one engineer."""

    def __init__(self, root: Path) -> None:
        self.root, self.sshd = root, Sshd(root / "sshd")
        write_devices(root / "config", self.sshd, {"board0": root / "board0"})
        self.env = {
            **os.environ, "EDGEKIT_SSH_CONFIG": str(self.sshd.config), "EDGEKIT_CONFIG": str(root / "config"),
            "EDGEKIT_RESULTS": str(root / "results"),
        }  # fmt: skip

    def edgekit(self, *words: str) -> subprocess.Popen[str]:
        """Start a command."""
        code = [sys.executable, "-c", "from edgekit.cli import main; main()", *words]
        return subprocess.Popen(code, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def trial(self, number: int) -> dict[str, Any]:
        """Return what became of one bench whose line was cut once."""
        rng = random.Random(number)
        before = set(self.stored())
        running = self.edgekit(*BENCH)
        at_s, for_s = (
            rng.uniform(0, _RUN_S),
            rng.choice([rng.uniform(0.2, 3), rng.uniform(3, _LONGEST_CUT_S)]),
        )
        time.sleep(at_s)
        self.sshd.stop()
        time.sleep(for_s)
        self.sshd.start()
        _, err = running.communicate(timeout=300)
        collects = 0
        while self.pending() and collects < 60:
            self.edgekit("results", "collect").communicate(timeout=120)
            collects += 1
            time.sleep(1)
        new = [self.stored()[i] for i in set(self.stored()) - before]
        # A command that could not even begin says so; then there is nothing to lose.
        never = running.returncode == 5 and not new and "goes on there" not in err
        return {
            "cut_at_s": round(at_s, 2), "cut_for_s": round(for_s, 2), "exit": running.returncode, "collects": collects,
            "results": len(new), "complete": sum(r["state"] == "complete" for r in new), "never_began": never,
            "said": err.strip().splitlines()[-2:] if never else [],
        }  # fmt: skip

    def stored(self) -> dict[str, dict[str, Any]]:
        """Return the stored results by id."""
        return {p.stem: json.loads(p.read_text()) for p in (self.root / "results").glob("*.json")}

    def pending(self) -> bool:
        """Return whether an order still waits for its result."""
        folder = self.root / "results" / "pending"
        return folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir())


def good(row: dict[str, Any]) -> bool:
    """Return whether a trial lost nothing and doubled nothing."""
    return bool(row["results"] == row["complete"] == 1 or (row["never_began"] and not row["results"]))


def main() -> int:
    """Run the trials that are missing; print and keep what became of them."""
    args = options_of(__doc__, KEPT).parse_args()
    rows: list[dict[str, Any]] = []
    if args.out.is_file() and not args.slice:
        rows = json.loads(args.out.read_text())["trials"]
    with tempfile.TemporaryDirectory() as folder:
        cuts = Cuts(Path(folder))
        try:
            while len(rows) < (3 if args.slice else 100):
                rows.append(cuts.trial(len(rows)))
                print(len(rows), json.dumps(rows[-1]), flush=True)
                if not args.slice:
                    write_json(args.out, {"trials": rows, "commit": commit(), "machine": passport()})
        finally:
            cuts.sshd.stop()
    bad = [r for r in rows if not good(r)]
    print(
        f"{len(rows)} cuts, {len(bad)} lost or doubled, {sum(r['never_began'] for r in rows)} before the run began"
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
