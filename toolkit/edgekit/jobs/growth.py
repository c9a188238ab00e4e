"""Measure a growing model here: its first answer against the whole model's, and requests while it grows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle.manifest import Variant
from edgekit.bundle.write import finish_bundle
from edgekit.core import versions
from edgekit.core.child import environment
from edgekit.core.digest import digest_file, plain
from edgekit.core.errors import ContractError
from edgekit.core.outcome import Grows
from edgekit.core.plugins import pick
from edgekit.core.watch import watcher
from edgekit.forms.stored import restore, store
from edgekit.jobs.ask import Ask
from edgekit.jobs.grow import NAME
from edgekit.jobs.progressive import growth_of
from edgekit.jobs.trial import machine_key
from edgekit.jobs.variants import Lowered, Networks
from edgekit.plans.progressive import FILE

_HZ = 30.0
# Fresh processes a figure, and seconds that growing is stretched to: each step meets some dozen requests.
_RUNS = {"quick": (3, 6.0), "standard": (7, 15.0), "thorough": (11, 60.0)}
_LONGEST_S = 300.0
# Rows that a report keeps of single requests.
_KEPT = 2000


def grows_of(ask: Ask, networks: Networks, one: Lowered, chain: Path) -> Grows:
    """Return what is known of a growing variant, timed where the device is this machine; kept in the cache.

    Args:
        ask: The compile.
        networks: After the passes.
        one: The variant.
        chain: Its segments.

    Raises:
        ContractError: It does not run.
    """
    here = ask.here and not ask.board
    inputs = {
        "chain": digest_file(chain / FILE), "whole": one.digest, "mode": ask.mode if here else "", "code": versions.code(),
        "machine": machine_key(ask) if here else "", "tools": versions.versions("numpy", one.wanted.backend),
    }  # fmt: skip

    def make(folder: Path) -> None:
        growth, facts = growth_of(chain), networks.facts[NAME]
        known: dict[str, Any] = {
            "metric": growth.metric, "masks": tuple(s.mask for s in growth.steps),
            "accuracy": tuple(s.accuracy for s in growth.steps),
            "in_torch": tuple(s["accuracy"] for s in facts["steps"]),
            "bytes": {n: s.size for n, s in growth.segments.items()}, "first_bytes": growth.first_bytes,
            "whole_bytes": sum(p.stat().st_size for p in one.artifact.folder.iterdir()),
        }  # fmt: skip
        if here:
            with tempfile.TemporaryDirectory() as place:
                _lone_bundle(Path(place), networks, one, chain)
                known |= _measured(ask, one, Path(place), sum(known["bytes"].values()))
        store(folder / "grows.json", Grows(**known))

    return restore(ask.cache.step("grows", inputs, make) / "grows.json", Grows)


def _lone_bundle(folder: Path, networks: Networks, one: Lowered, chain: Path) -> None:
    """Write a bundle that holds this variant alone."""
    name = one.wanted.plain
    shutil.copytree(chain, folder / "variants" / name)
    variant = Variant(
        name=name, backend=one.wanted.backend, precision=one.wanted.precision, main=f"variants/{name}/{FILE}",
        options=one.artifact.options, needs={}, plan="progressive",
    )  # fmt: skip
    finish_bundle(folder, name=name, contract=networks.float32.contract, variants=[variant], facts={})


def _measured(ask: Ask, one: Lowered, bundle: Path, size: int) -> dict[str, Any]:
    runs, span_s = _RUNS[ask.mode]
    artifact = one.artifact
    order = {
        "bundle": str(bundle), "variant": one.wanted.plain,
        "engine": pick("backends", artifact.backend, what="backend").package,
        "backend": artifact.backend, "precision": artifact.precision, "main": str(artifact.main),
        "options": plain(artifact.options), "contract": plain(artifact.contract),
        "hz": _HZ, "mb_s": size / 1e6 / span_s, "most_s": _LONGEST_S, "least_s": span_s,
    }  # fmt: skip
    watcher().phase("first answer")
    first, whole = [], []
    for _ in range(runs):
        first.append(trial({**order, "do": "first"}))
        whole.append(trial({**order, "do": "whole"}))
    watcher().phase("requests while it grows")
    grown = trial({**order, "do": "grow"})
    return {
        "first_ms": float(np.median([t["ms"] for t in first])), "whole_ms": float(np.median([t["ms"] for t in whole])),
        "cold": all(t["cold"] for t in (*first, *whole)), "runs": runs, "hz": _HZ, "mb_s": order["mb_s"],
        "peak_mb": grown["peak_mb"], "whole_peak_mb": float(np.median([t["peak_mb"] for t in whole])),
        "where": ask.where, **requests_of(grown),
    }  # fmt: skip


def requests_of(grown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a trial's requests say, beside those of the same steps with nothing to load, and rows for a plot."""
    rows, control = grown["rows"], grown["control"]
    usual = {k: float(np.median([r[1] for r in control if r[2] == k])) for k in {r[2] for r in control}}
    during, after = ([r[1] - usual[r[2]] for r in part if r[2] in usual] for part in (rows, control))
    thin = max(1, len(rows) // _KEPT)
    return {
        "requests": (len(rows), len(control)), "stall_ms": _spread(during), "control_ms": _spread(after),
        "changes": tuple((e[0], e[2]) for e in grown["events"] if e[1] in {"answers", "swapped"}),
        "latency": tuple((round(r[0], 3), round(r[1], 3), r[2]) for r in rows[::thin]),
        "memory": tuple((round(r[0], 2), round(r[3], 1)) for r in rows[:: max(1, len(rows) // 200)]),
    }  # fmt: skip


def _spread(values: Sequence[float]) -> tuple[float, float, float] | None:
    if not values:
        return None
    return float(np.percentile(values, 50)), float(np.percentile(values, 99)), float(max(values))


def trial(order: Mapping[str, Any]) -> dict[str, Any]:
    """Run one order in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekit.runtime.growth_trial"], input=json.dumps(order), env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    if done.returncode or "error" in answer or not answer:
        said = answer.get("error") or (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise ContractError(f"the growing bundle cannot be run: {said}", hint="Report it with the recipe.")
    return answer
