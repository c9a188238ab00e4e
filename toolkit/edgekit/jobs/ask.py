"""What a compile was asked for, and where it works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.cache import StepCache
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import have
from edgekit.devices.jetpacks import Target, own_release, target_for
from edgekit.devices.profiles import Profile
from edgekit.jobs.remote import Remote
from edgekit.recipe.check import Checked


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One compile, as asked for.

    Attributes:
        checked: The recipe.
        profile: The device.
        host: Passport of this machine.
        board: The device, where its entry says how to reach it and it answered: it is measured, then.
        cache: Where finished steps are kept.
        out: Folder that gets `<recipe>-<device>/`.
        precision: Only variants of this precision, empty for all.
        imgsz: Image side in pixels, 0 for the recipe's.
        quick: 200 validation images and the smoke bench.
        require_measured: What was not measured or not judged fails.
        sign_key: PEM file with an Ed25519 private key.
        jetpack: JetPack release of a Jetson, empty for the board's own or the usual one.
        tensorrt: Version of TensorRT there, empty for that of the release.
        dla: Core of the deep-learning accelerator, None for the GPU.
        weak: Leave types to the flags of TensorRT 10.
    """

    checked: Checked
    profile: Profile
    host: dict[str, Any]
    cache: StepCache
    out: Path
    board: Remote | None = None
    precision: str = ""
    imgsz: int = 0
    quick: bool = False
    require_measured: bool = False
    sign_key: Path | None = None
    jetpack: str = ""
    tensorrt: str = ""
    dla: int | None = None
    weak: bool = False

    @property
    def target(self) -> Target | None:
        """What TensorRT files are written for, None for a device without TensorRT.

        Raises:
            RecipeError: Release, version or accelerator do not exist on the device.
        """
        said = self.jetpack or self.tensorrt or self.dla is not None or self.weak
        if "tensorrt" not in self.profile.backends and not said:
            return None
        jetpack, tensorrt = self.jetpack, self.tensorrt
        if not (jetpack or tensorrt):
            jetpack, tensorrt = own_release(self.passport if self.ours else {})
        return target_for(self.profile, jetpack=jetpack, tensorrt=tensorrt, dla=self.dla, weak=self.weak)

    @property
    def passport(self) -> dict[str, Any]:
        """What is measured is: the board, or this machine."""
        return self.board.passport if self.board else self.host

    @property
    def ours(self) -> bool:
        """Whether the device is this machine, or answered."""
        return self.board is not None or self.profile.is_machine(self.host)

    @property
    def here(self) -> bool:
        """Whether variants are measured: the device is `ours`, and has the engine that comes first on it."""
        return self.ours and (not self.profile.builds_engines or self.has("tensorrt"))

    @property
    def where(self) -> str:
        """What is measured on, in words."""
        return self.board.name if self.board else "this machine"

    def has(self, engine: str) -> bool:
        """Return whether an engine can lower here and, where a board is measured, run there."""
        if engine == "tensorrt":
            # Writing its files needs nothing; building and running them needs the board's own.
            return engine in self.passport.get("engines", {})
        return have(engine) and (self.board is None or self.board.has(engine))

    @property
    def why_not_here(self) -> str:
        """Why nothing is measured, empty where it is."""
        if self.here:
            return ""
        if self.ours:
            return f"the Python of {self.where} has no tensorrt (it comes with JetPack; make the venv with --system-site-packages)"
        if self.profile.reachable:
            return f"the Python of {self.profile.name} is too old to be measured"
        return f"{self.profile.name} is not this machine"

    @property
    def folder(self) -> Path:
        """Where bundle and report go."""
        return self.out / f"{self.checked.name}-{self.profile.name}"

    @property
    def mode(self) -> str:
        """The bench mode."""
        return "smoke" if self.quick else self.checked.recipe.bench.mode

    @property
    def side(self) -> int:
        """Image side asked for, 0 for the model's own."""
        return self.imgsz or self.checked.recipe.export.imgsz

    @property
    def only_precision(self) -> str:
        """The one precision that is wanted, empty for any."""
        return self.precision or str(self.checked.on(self.profile.name).get("precision", ""))

    @property
    def only_backend(self) -> str:
        """The one backend that is wanted, empty for any."""
        return str(self.checked.on(self.profile.name).get("backend", ""))


def refuse_foreign(folder: Path) -> None:
    """Refuse an output folder that holds something edgekit did not write.

    Raises:
        RecipeError: It does.
    """
    if not folder.exists():
        return
    ours = {"bundle", "report.html", "report.json", "report.md", "sheet.png", "slim-network"}
    if not folder.is_dir() or {p.name for p in folder.iterdir()} - ours:
        raise RecipeError(
            f"{folder}: is taken by something that edgekit did not write",
            hint="Choose another folder with -o, or move that one away.",
        )
