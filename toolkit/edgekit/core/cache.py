"""Keep the result of each step in a folder named by the digest of all that went into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.digest import digest_value, plain
from edgekit.core.files import folder_aside, resource_errors, write_json


@dataclass(frozen=True, kw_only=True)
class StepCache:
    """Where steps are kept, and whether finished ones are used again.

    Attributes:
        root: Folder of the cache.
        reuse: False makes every step once more and replaces what was kept.
    """

    root: Path
    reuse: bool = True

    def step(self, name: str, inputs: dict[str, Any], make: Callable[[Path], None]) -> Path:
        """Return the folder with the step's files, made by `make(folder)` unless it is kept.

        A step that fails or is interrupted leaves nothing.

        Args:
            name: The step's name, a folder name.
            inputs: All that decides the result: digests, settings, tool versions.
            make: Writes the step's files into the empty folder it is given.

        Raises:
            ResourceError: The cache cannot be written.
        """
        final = self.root / "steps" / name / digest_value(inputs)[:32]
        if self.reuse and final.is_dir():
            return final
        with resource_errors(self.root), folder_aside(final) as aside:
            make(aside)
            write_json(aside / "step.json", {"name": name, "inputs": plain(inputs)})
        return final

    def entries(self) -> Iterator[tuple[str, Path, int]]:
        """Give name, folder and size in bytes of every kept step, unfinished trainings included."""
        for folder in sorted([*self.root.glob("steps/*/*"), *self.root.glob("training/*")]):
            if not folder.name.startswith("."):
                size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                yield folder.parent.name, folder, size

    def clear(self) -> int:
        """Remove every kept step and what interrupted ones left; return the bytes freed."""
        freed = sum(size for _, _, size in self.entries())
        for kind in ("steps", "training"):
            if (self.root / kind).exists():
                with resource_errors(self.root):
                    shutil.rmtree(self.root / kind)
        return freed
