"""Let a reachable board do what a compile measures: time variants, find objects, compare outputs."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.digest import plain
from edgekit.core.errors import MissingError
from edgekit.core.records import Artifact, Frames
from edgekit.core.watch import watcher
from edgekit.devices.agents import Agent, understood
from edgekit.devices.connect import agent_of
from edgekit.devices.profiles import Profile
from edgekit.frames.coded import read_frame
from edgekit.jobs.orders import new_order
from edgekit.measure.contest import Sample as Timed
from edgekit.measure.detect import Row, unpacked
from edgekit.metrics.coco_map import LIMIT, SCORE

# A board without an image decoder gets raw arrays, 1.2 MB each at 640 px: so many at most for timings.
_ARRAYS = 32


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A board that answered.

    Attributes:
        name: Of the device.
        agent: To talk to it.
        passport: What it is.
        decoder: Whether it can read image files.
    """

    name: str
    agent: Agent = field(repr=False)
    passport: dict[str, Any]
    decoder: bool

    def has(self, engine: str) -> bool:
        """Return whether an engine is installed there."""
        return engine in self.passport.get("engines", {})

    def contest(
        self, artifacts: Mapping[str, Artifact], files: Sequence[Path], *, runs: int, seconds: float, limit_s: float,
        spans: Sequence[str], receipts: bool,
    ) -> dict[str, Timed]:  # fmt: skip
        """Return what `measure.contest` found there."""
        frames = list(files) if self.decoder else list(files)[:_ARRAYS]
        settings = {
            "runs": runs, "seconds": seconds, "limit_s": limit_s, "spans": list(spans), "receipts": receipts,
        }  # fmt: skip
        found = self._done("contest", artifacts, frames, settings)["samples"]
        return {name: Timed(**one) for name, one in found.items()}

    def detections(self, artifact: Artifact, files: Sequence[Path]) -> list[Row]:
        """Return the detections of every image, found there by the code that an app runs."""
        settings = {"score": SCORE, "limit": LIMIT}
        return unpacked(base64.b64decode(self._done("answers", {"main": artifact}, files, settings)["found"]))

    def pair(self, reference: Artifact, other: Artifact, files: Sequence[Path]) -> tuple[float, bool]:
        """Return the largest relative output error between two artifacts there, and whether scores fell."""
        found = self._done("pair", {"reference": reference, "other": other}, files, {})
        return float(found["error"]), bool(found["fell"])

    def parity(self, artifact: Artifact, given: Sequence[Path]) -> list[float]:
        """Return the largest relative error of each pair `inputsK.npz`, `expectedK.npz` in a folder."""
        more = {f"golden/{p.name}": p for p in given}
        errors: list[float] = self._done("parity", {"main": artifact}, (), {}, more=more)["errors"]
        return errors

    def engine(self, artifact: Artifact, *, limit_s: float) -> dict[str, Any]:
        """Return what is known of the TensorRT engine of an artifact there, built where it is not there yet."""
        return self._done("engine", {"main": artifact}, (), {"what": "build", "limit_s": limit_s})

    def golden(self, bundle: Path) -> list[Any]:
        """Return the answers of the bundle's runtime there for its golden frames."""
        files = {f"bundle/{p.relative_to(bundle).as_posix()}": p for p in bundle.rglob("*") if p.is_file()}
        found: list[Any] = self._done("golden", {}, (), {}, more=files)["answers"]
        return found

    def encoder(self, artifact: Artifact, files: Sequence[Path]) -> dict[str, Any]:
        """Return how long the board takes to code one frame, as `measure.encoder` says it."""
        return self._done("encoder", {"main": artifact}, files, {})

    def _done(
        self, do: str, artifacts: Mapping[str, Artifact], frames: Sequence[Path], settings: dict[str, Any],
        *, more: Mapping[str, Path] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Send what the board lacks, wait, and return its answer.

        Raises:
            EdgekitError: As there.
        """
        with tempfile.TemporaryDirectory() as folder:
            sources = dict(more or {})
            entrants = {}
            for number, (name, artifact) in enumerate(artifacts.items()):
                for path in sorted(artifact.folder.iterdir()):
                    sources[f"{number}/{path.name}"] = path
                entrants[name] = plain(replace(artifact, main=Path(str(number)) / artifact.main.name))
            spec = next((a.contract.frames for a in artifacts.values()), None)
            paths = [self._frame(k, p, Path(folder), spec) for k, p in enumerate(frames)]
            sources |= dict(paths)
            order = new_order(
                do,
                self.name,
                sources,
                frames=tuple(n for n, _ in paths),
                settings={**settings, "entrants": entrants},
            )
            return self.agent.done(order, sources, wait=True)

    def _frame(self, number: int, path: Path, folder: Path, spec: Frames | None) -> tuple[str, Path]:
        # A sensor's values go as an array: whether a board reads 16-bit files or DNG is not asked.
        if self.decoder and not (spec and spec.coding):
            return f"frames/{number:05d}{path.suffix}", path
        made = folder / f"{number}.npy"
        np.save(made, read_frame(path, spec))
        return f"frames/{number:05d}.npy", made


def reached(profile: Profile) -> Remote | None:
    """Return the board of a profile that says how to reach it, None for one that does not.

    A board whose Python is too old for the agent (JetPack 5) is none either, and that is said.

    Raises:
        DeviceError: It does not answer.
    """
    if not profile.reachable:
        return None
    agent = agent_of(profile)
    try:
        hello = agent.hello()
    except MissingError as error:
        if not profile.builds_engines:
            raise
        watcher().note(
            f"{error.message}: latency is predicted, for the usual release unless --jetpack names it; `edgekit engine build` uses the board's own trtexec"
        )
        return None
    with understood(profile.name):
        return Remote(name=profile.name, agent=agent, passport=hello["passport"], decoder=hello["decoder"])
