"""Write generated data sets to disk in YOLO layout.

Run as `python -m edgekit.data.make`, it draws the scenes that are named on stdin: one process a
core, and none of them runs the caller's own script again, as multiprocessing would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.codecs.sensor import Sensor
from edgekit.core.child import environment
from edgekit.core.errors import RecipeError, ResourceError
from edgekit.core.files import folder_aside, resource_errors, write_text
from edgekit.core.lazy import need
from edgekit.core.plugins import suggestion
from edgekit.core.watch import steps
from edgekit.data import digits_dark, digits_mini, thermal_mini, uav_dark, uav_mini, wear_mini
from edgekit.data.window import Window

JPEG_QUALITY = 92
# cv2.IMWRITE_PNG_COMPRESSION, 1: noise does not compress, and stronger levels only take longer.
_RAW_PNG = [16, 1]


@dataclass(frozen=True)
class Generated:
    """A set that edgekit draws.

    Attributes:
        draw: Gives scene `index` of a split.
        classes: Class names.
        what: One line for a person.
        sources: The files that decide its pixels.
        size: What `size` is where nobody says: pixels of a side, or samples.
        sensor: What recorded it, where the values are a sensor's own.
        least: The smallest size that can be drawn; where it is `size`, there is no other.
        split: Training and validation signals drawn where nobody says more; 0 leaves that to the caller.
    """

    draw: Callable[..., Any]
    classes: tuple[str, ...]
    what: str
    sources: tuple[Path, ...]
    size: int = 640
    sensor: Sensor | None = None
    least: int = 64
    split: tuple[int, int] = (0, 0)

    @property
    def windows(self) -> bool:
        """Whether it is signals or pictures with one class each, rather than images with boxes."""
        return bool(self.split[0])

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return "signals" if self.windows and self.sensor else "images"


def _files(*modules: ModuleType) -> tuple[Path, ...]:
    return tuple(Path(str(m.__file__)) for m in modules)


GENERATED = {
    "uav-mini": Generated(
        uav_mini.draw_scene, uav_mini.CLASSES, "small vehicles and people from the air", _files(uav_mini)
    ),
    "thermal-mini": Generated(
        thermal_mini.draw_scene, thermal_mini.CLASSES, "people, cars, bicycles and lights in a thermal camera",
        _files(thermal_mini),
    ),
    "uav-dark": Generated(
        uav_dark.draw_scene, uav_dark.CLASSES, "uav-mini at night as 12-bit raw of a colour sensor",
        _files(uav_dark, uav_mini), sensor=uav_dark.SENSOR, least=128,
    ),
    "wear-mini": Generated(
        wear_mini.draw_window, wear_mini.CLASSES, "six small motions at the wrist, a 12-bit accelerometer",
        _files(wear_mini), size=wear_mini.SAMPLES, least=8, sensor=wear_mini.SENSOR, split=(2400, 1200),
    ),
    "digits-dark": Generated(
        digits_dark.draw_window, digits_dark.CLASSES, "scikit-learn's digits before a 12-bit sensor in the dark",
        _files(digits_dark), size=digits_dark.SIDE, least=digits_dark.SIDE, sensor=digits_dark.SENSOR, split=(2594, 500),
    ),
    "digits-mini": Generated(
        digits_mini.draw_window, digits_mini.CLASSES, "scikit-learn's digits as small noisy pictures",
        _files(digits_mini), size=digits_mini.SIDE, least=digits_mini.SIDE, split=(3891, 1000),
    ),
}  # fmt: skip


def make_set(
    name: str,
    out: Path,
    *,
    train: int = 2000,
    val: int = 500,
    seed: int = 0,
    size: int = 0,
    workers: int = 0,
) -> Path:
    """Write a generated set to folder `out` and return the path of its `data.yaml`.

    The same arguments give the same scenes on any machine; JPEG bytes depend on the OpenCV version.

    Args:
        name: One of `GENERATED`.
        out: A folder that does not exist yet or is empty.
        train: Number of training images.
        val: Number of validation images.
        seed: Seed of every scene.
        size: Side of the square images in pixels (of thermal-mini the width, its height is 4/5 of it), samples of
            a time series; 0 takes the set's own.
        workers: Processes that draw; 0 takes one a core.

    Raises:
        RecipeError: There is no such set, or `out` is taken.
        ResourceError: No space or no permission.
    """
    if name not in GENERATED:
        raise RecipeError(f"data make: no set {name!r}", hint=suggestion(name, GENERATED))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(f"{out}: is there already", hint="Choose a new folder or remove this one.")
    made = GENERATED[name]
    size = size or made.size
    if size < made.least or (made.least == made.size and size != made.size):
        other = f"goes from {made.least}" if made.least < made.size else f"is {made.size}"
        raise RecipeError(
            f"data make: --size {size}: that of {name} {other}", hint="Correct it, or leave it out."
        )
    if made.folder == "images":
        need("cv2", extra="host", why="write images")
    if name.startswith("digits-"):
        need("sklearn.datasets", extra="train", why=f"draw {name}")
    jobs = [(s, i) for s, n in (("train", train), ("val", val)) for i in range(n)]
    with resource_errors(out), folder_aside(out) as aside:
        for folder in _folders(made):
            (aside / folder).mkdir(parents=True)
        for _ in steps("drawing scenes", _draw_all(name, aside, jobs, seed, size, workers), len(jobs)):
            pass
        # No `path:`, so that every reader starts from the file's own folder; ultralytics takes "." for
        # the working folder.
        names = "".join(f"  {i}: {label}\n" for i, label in enumerate(made.classes))
        text = f"# {name}, generated by `edgekit data make {name} --seed {seed}`\n"
        where = made.folder
        text += f"train: {where}/train\nval: {where}/val\nnames:\n{names}"
        write_text(aside / "data.yaml", text + (sensor_yaml(made.sensor) if made.sensor else ""))
    return out / "data.yaml"


def _folders(made: Generated) -> list[Path]:
    if made.windows:
        return [Path(made.folder, s, c) for s in ("train", "val") for c in made.classes]
    return [Path(kind, s) for kind in ("images", "labels") for s in ("train", "val")]


def sensor_yaml(sensor: Sensor) -> str:
    """Return the `sensor` part of a data.yaml; keys that say nothing are left out."""
    words = {k: v for k, v in vars(sensor).items() if v}
    # JSON is YAML.
    return "sensor:\n" + "".join(f"  {k}: {json.dumps(v)}\n" for k, v in words.items())


def _draw_all(
    name: str, out: Path, jobs: list[tuple[str, int]], seed: int, size: int, workers: int
) -> Iterator[None]:
    """Draw the jobs in processes of their own and yield once for each finished scene."""
    count = min(workers or os.cpu_count() or 1, len(jobs)) or 1
    env = environment()
    running: list[subprocess.Popen[str]] = []
    try:
        for k in range(count):
            one = subprocess.Popen(
                [sys.executable, "-m", "edgekit.data.make"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
            )  # fmt: skip
            running.append(one)
            assert one.stdin
            one.stdin.write(json.dumps([name, str(out), seed, size, jobs[k::count]]))
            one.stdin.close()
        for k, one in enumerate(running):
            assert one.stdout
            assert one.stderr
            done = 0
            for _ in one.stdout:
                done += 1
                yield
            if one.wait() or done < len(jobs[k::count]):
                said = one.stderr.read().strip().splitlines()
                raise ResourceError(
                    f"{out}: drawing stopped ({said[-1] if said else 'no message'})",
                    hint="Check space, permission and memory, then run again.",
                )
    finally:
        for one in running:
            one.kill()
            one.wait()
            for pipe in (one.stdout, one.stderr):
                if pipe:
                    pipe.close()


def _write_one(name: str, out: Path, split: str, index: int, seed: int, size: int) -> None:
    made = GENERATED[name]
    scene = made.draw(seed=seed, split=split, index=index, size=size)
    if isinstance(scene, Window):
        _write_window(scene, out / made.folder / split / made.classes[scene.label] / f"{index:06d}", made)
        return
    cv2 = need("cv2", extra="host", why="write images")
    suffix, how = (".png", _RAW_PNG) if made.sensor else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    done, data = cv2.imencode(suffix, scene.image, how)
    assert done
    (out / "images" / split / f"{index:06d}{suffix}").write_bytes(data.tobytes())
    height, width = scene.image.shape[:2]
    lines = []
    for (x1, y1, x2, y2), label in zip(scene.boxes, scene.classes, strict=True):
        middle = f"{(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f}"
        lines.append(f"{label} {middle} {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n")
    (out / "labels" / split / f"{index:06d}.txt").write_text("".join(lines))


def _write_window(window: Window, stem: Path, made: Generated) -> None:
    """Write a signal as an array, a picture as PNG."""
    if made.sensor:
        np.save(stem.with_suffix(".npy"), window.signal)
        return
    done, data = need("cv2", extra="host", why="write images").imencode(".png", window.signal)
    assert done
    stem.with_suffix(".png").write_bytes(data.tobytes())


def main() -> None:
    """Draw the scenes named on stdin; print a dot a scene."""
    name, out, seed, size, jobs = json.load(sys.stdin)
    if GENERATED[name].folder == "images":
        need("cv2", extra="host").setNumThreads(1)
    for split, index in jobs:
        _write_one(name, Path(out), split, index, seed, size)
        sys.stdout.write(".\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
