"""Run a bundle over an image, a folder, a video or a camera, and draw or list the answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import RecipeError, ResourceError
from edgekit.core.files import resource_errors
from edgekit.core.lazy import need
from edgekit.core.records import Frames
from edgekit.core.watch import watcher
from edgekit.frames import raw
from edgekit.frames.coded import read_frame
from edgekit.frames.images import SUFFIXES, write_png
from edgekit.runtime.draw import draw
from edgekit.runtime.load import load

_VIDEOS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v"})


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a run over a source gave.

    Attributes:
        variant: The variant that ran.
        answers: One row a frame: source, answers, summary in words, milliseconds.
        written: Files that were drawn.
        median_ms: Frame to answer, reading and drawing left out.
    """

    variant: str
    answers: list[dict[str, Any]]
    written: list[str]
    median_ms: float


def run_source(
    bundle: str | Path,
    source: str,
    *,
    output: Path | None = None,
    draw_answers: bool = True,
    variant: str | None = None,
    threads: int | None = None,
    trusted_key: Path | None = None,
    frames: int = 0,
) -> Served:
    """Return the answers for every frame of a source.

    Args:
        bundle: A bundle folder or `.ekb`, or its address. A model that grows answers when it is whole.
        source: An image, a folder of images, a video, or a camera's index.
        output: File or folder for drawn frames; beside the working folder where None.
        draw_answers: Whether to draw at all (needs cv2).
        variant: Variant to use.
        threads: Threads of the engine.
        trusted_key: PEM file with the key that must have signed the bundle.
        frames: Frames at most, 0 for all.

    Raises:
        RecipeError: The source is missing or holds no frames.
    """
    rows: list[dict[str, Any]] = []
    written: list[str] = []
    _refuse_missing(source)
    with load(bundle, variant=variant, threads=threads, trusted_key=trusted_key) as model:
        model.whole()
        # A sensor's values are no picture to draw on.
        picture = model.contract.frames is None or model.contract.frames.coding is None
        if output and draw_answers and not picture:
            raise RecipeError(
                f"{output}: nothing can be drawn on a sensor's values",
                hint="Leave the output out; --json gives the answers.",
            )
        sink = _Sink(source, output) if draw_answers and picture else None
        watcher().phase("run")
        try:
            for name, frame in _frames(source, frames, model.contract.frames):
                began = time.perf_counter_ns()
                answer = model(frame)
                spent = (time.perf_counter_ns() - began) / 1e6
                told = {"answers": answer.plain(), "summary": _summary(answer)}
                rows.append({"source": name, **told, "ms": round(spent, 3)})
                if sink:
                    written += sink.put(name, draw(frame, answer))
                watcher().step("frames", len(rows), frames or len(rows))
        finally:
            if sink:
                sink.close()
        name = model.variant.name
    if not rows:
        raise RecipeError(
            f"{source}: holds no frames", hint="Give an image, a folder, a video or a camera's index."
        )
    return Served(
        variant=name, answers=rows, written=written, median_ms=float(np.median([r["ms"] for r in rows]))
    )


def _refuse_missing(source: str) -> None:
    path = Path(source)
    if source.isdigit() or path.is_dir():
        return
    if not path.is_file():
        raise RecipeError(f"{source}: no such image, folder or video", hint="Check the path.")
    if path.suffix.lower() not in SUFFIXES | raw.SUFFIXES | _VIDEOS:
        raise RecipeError(
            f"{source}: edgekit does not know {path.suffix or 'this'} files",
            hint=f"Give {', '.join(sorted(SUFFIXES | _VIDEOS))}, a folder, or a camera's index.",
        )


def _frames(source: str, limit: int, spec: Frames | None) -> Iterator[tuple[str, NDArray[Any]]]:
    path = Path(source)
    suffixes = raw.SUFFIXES if spec and spec.coding else SUFFIXES
    if source.isdigit() or path.suffix.lower() in _VIDEOS:
        yield from _video(source, limit)
        return
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes) if path.is_dir() else [path]
    for file in files[: limit or None]:
        yield file.name, read_frame(file, spec)


def _video(source: str, limit: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    cv2 = need("cv2", extra="vision", why="read video")
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    try:
        if not capture.isOpened():
            what = f"camera {source}" if source.isdigit() else source
            raise RecipeError(f"{what}: cannot be opened", hint="Check the index or the file.")
        count = 0
        while not limit or count < limit:
            good, frame = capture.read()
            if not good:
                return
            yield f"{Path(source).name}:{count}", frame
            count += 1
    finally:
        capture.release()


class _Sink:
    """Where drawn frames go: one file for an image, a folder for many, a video for a video."""

    def __init__(self, source: str, output: Path | None) -> None:
        self._cv2 = need("cv2", extra="vision", why="draw")
        path = Path(source)
        self._single = path.is_file() and path.suffix.lower() in SUFFIXES
        self._movie = source.isdigit() or path.suffix.lower() in _VIDEOS
        stem = f"camera{source}" if source.isdigit() else path.stem
        usual = Path(f"{stem}-drawn" + (".jpg" if self._single else ".avi" if self._movie else ""))
        self._out = output or usual
        if self._single and output and output.is_dir():
            self._out = output / usual
        self._writer: Any = None

    def put(self, name: str, image: NDArray[np.uint8]) -> list[str]:
        """Write one drawn frame; return the files that are new."""
        if self._movie:
            return self._put_movie(image)
        target = self._out if self._single else self._out / f"{Path(name).stem}.jpg"
        with resource_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            good, data = self._cv2.imencode(target.suffix or ".jpg", image)
            if not good:
                raise RecipeError(
                    f"{target}: cv2 cannot write {target.suffix} files", hint="Use .jpg or .png."
                )
            target.write_bytes(data.tobytes())
        return [str(target)]

    def _put_movie(self, image: NDArray[np.uint8]) -> list[str]:
        if self._writer is not None:
            self._writer.write(image)
            return []
        size = (image.shape[1], image.shape[0])
        with resource_errors(self._out):
            self._out.parent.mkdir(parents=True, exist_ok=True)
        self._writer = self._cv2.VideoWriter(
            str(self._out), self._cv2.VideoWriter_fourcc(*"MJPG"), 25.0, size
        )
        if not self._writer.isOpened():
            raise ResourceError(
                f"{self._out}: cannot be written as video", hint="Choose an .avi file with -o."
            )
        self._writer.write(image)
        return [str(self._out)]

    def close(self) -> None:
        """Finish the video."""
        if self._writer is not None:
            self._writer.release()


def _summary(answer: Any) -> str:
    rows = answer.plain()
    if not rows:
        return "nothing found"
    if "box" not in rows[0]:
        return ", ".join(f"{r['name'] or r['class']} {r['score']:.2f}" for r in rows[:3])
    counts: dict[str, int] = {}
    for row in rows:
        key = str(row["name"] or row["class"])
        counts[key] = counts.get(key, 0) + 1
    return ", ".join(f"{n} {k}" for k, n in sorted(counts.items(), key=lambda p: (-p[1], p[0])))


def run_prompts(
    bundle: str | Path, *, prompts: Sequence[str], output: Path | None = None, variant: str | None = None,
    threads: int | None = None, trusted_key: Path | None = None, negative: str = "", seed: int = 0, steps: int = 0,
    guidance: float | None = None, schedule: str = "",
) -> Served:  # fmt: skip
    """Write a picture for every prompt.

    Args:
        bundle: Of a diffusion model.
        prompts: What there shall be.
        output: File of one picture, or folder; `picture.png`, or numbered ones, in the working folder where None.
        variant: Variant to use.
        threads: Threads of the engine.
        trusted_key: PEM file with the key that must have signed it.
        negative: What there shall not be.
        seed: Of the first picture's noise; the next ones take the next seeds.
        steps: Instead of the bundle's, where not 0.
        guidance: The same, where not None.
        schedule: The same, where not empty.

    Raises:
        RecipeError: The bundle makes no pictures, or a prompt is empty.
    """
    files = _picture_files(output, len(prompts))
    watch = watcher()
    with load(bundle, variant=variant, threads=threads, trusted_key=trusted_key) as model:
        made = model.generate(
            prompts, negative=negative, seed=seed, steps=steps, guidance=guidance, schedule=schedule,
            heard=lambda _, done: watch.step("steps", done, done),
        )  # fmt: skip
        name = model.variant.name
    rows = []
    for k, (file, image) in enumerate(zip(files, made.images, strict=True)):
        write_png(file, image)
        rows.append(
            {
                "prompt": prompts[k],
                "seed": seed + k,
                "steps": made.steps,
                "ms": round(made.ms[k], 2),
                "file": str(file),
            }
        )
    return Served(
        variant=name, answers=rows, written=[str(f) for f in files], median_ms=float(np.median(made.ms))
    )


def _picture_files(output: Path | None, count: int) -> list[Path]:
    if output is not None and output.suffix.lower() == ".png" and count == 1:
        return [output]
    if output is not None and output.suffix:
        wanted = "a folder for several pictures" if count > 1 else "a .png file or a folder"
        raise RecipeError(f"{output}: cannot hold what is made", hint=f"Give {wanted} with -o.")
    folder = output or Path()
    return [folder / ("picture.png" if count == 1 else f"picture-{k}.png") for k in range(count)]
