"""Benchmark 200 agents by one command, some of them killed on the way: nothing lost, nothing doubled.

    python scripts/evidence/agents.py            # 200; about 20 minutes
    python scripts/evidence/agents.py --slice    # 6, for CI; writes nothing

Each agent is a process of its own with its own folder and lock, reached by the `ssh` kind through one real sshd on
loopback; at most 16 work at once. Every few seconds one that works is killed.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from detectors import commit
from options import options_of

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.sshd import Sshd, write_devices  # noqa: E402 - of this checkout

from edgekit.board.hold import holder  # noqa: E402
from edgekit.core.files import write_json  # noqa: E402
from edgekit.machine.probe import passport  # noqa: E402

KEPT = ROOT / "docs" / "evidence" / "agents.json"
BENCH = (
    "bench", str(ROOT / "models" / "uav-yolov8n.onnx"), "--imgsz", "64", "--devices", "tag:lab", "--mode", "smoke",
    "--runs", "64", "--seconds", "1", "--span", "model", "--threads", "1", "--json",
)  # fmt: skip


def workers(root: Path) -> list[int]:
    """Return the agents' worker processes."""
    found = subprocess.run(
        ["pgrep", "-f", f"agent-.*worker {root}"], capture_output=True, check=False, text=True
    )
    return [int(p) for p in found.stdout.split()]


def killer(root: Path, killed: list[int], most: list[int], ended: threading.Event, every_s: float) -> None:
    """Kill one working agent now and then; note how many work at once."""
    rng = random.Random(0)
    last = time.monotonic()
    while not ended.wait(0.5):
        found = workers(root)
        most.append(sum(holder(p) is not None for p in root.glob("*.lock")))
        if found and time.monotonic() - last > every_s:
            last = time.monotonic()
            pid = rng.choice(found)
            try:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            except ProcessLookupError:
                continue


def run(count: int, every_s: float) -> dict[str, Any]:
    """Return the figures of one command over `count` boards."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sshd = Sshd(root / "sshd")
        write_devices(root / "config", sshd, {f"board{k}": root / "boards" / str(k) for k in range(count)})
        env = {
            **os.environ, "EDGEKIT_SSH_CONFIG": str(sshd.config), "EDGEKIT_CONFIG": str(root / "config"),
            "EDGEKIT_RESULTS": str(root / "results"),
        }  # fmt: skip
        killed: list[int] = []
        most: list[int] = [0]
        ended = threading.Event()
        thread = threading.Thread(target=killer, args=(root / "boards", killed, most, ended, every_s))
        thread.start()
        began = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-c", "from edgekit.cli import main; main()", *BENCH], env=env, capture_output=True, check=False, text=True,
            )  # fmt: skip
        finally:
            ended.set()
            thread.join()
            sshd.stop()
        answered = json.loads(done.stdout)
        stored = [json.loads(p.read_text()) for p in (root / "results").glob("*.json")]
        devices = [r["device"] for r in stored]
        return {
            "agents": count, "exit": done.returncode, "killed": len(killed), "seconds": round(time.monotonic() - began, 1),
            "answered": len(answered), "complete": sum(r["state"] == "complete" for r in answered),
            "failed": [[r["device"], *r["reason"]] for r in answered if r["state"] != "complete"],
            "stored": len(stored), "boards_with_one_result": sum(devices.count(d) == 1 for d in set(devices)),
            "begun_again": sum(any("begun" in n for n in r["notes"]) for r in stored), "most_at_once": max(most),
            "host_peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
        }  # fmt: skip


def main() -> int:
    """Run, print and keep the figures."""
    parser = options_of(__doc__, KEPT)
    parser.add_argument("--agents", type=int, default=0)
    args = parser.parse_args()
    count = args.agents or (6 if args.slice else 200)
    found = run(count, 4.0 if args.slice else 8.0)
    print(json.dumps(found, indent=2))
    if not args.slice:
        write_json(args.out, {**found, "commit": commit(), "machine": passport()})
    right = found["stored"] == found["boards_with_one_result"] == found["answered"] == count
    return int(not (right and found["most_at_once"] <= 16))


if __name__ == "__main__":
    sys.exit(main())
