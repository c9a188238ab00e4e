"""Find out what a variant's pictures are worth: latents on held-out prompts, what a classifier sees, the time they take."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.protocol import Session
from edgekit.calibration.walks import apart, evenly
from edgekit.core import versions
from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError
from edgekit.core.files import write_bytes
from edgekit.core.lazy import need
from edgekit.core.records import Network
from edgekit.core.watch import watcher
from edgekit.forms.stored import restore, store
from edgekit.graph.onnx_file import inputs_of, metadata_of, outputs_of, read_onnx
from edgekit.jobs.ask import Ask
from edgekit.jobs.paint_parts import Recorder, painting, parts_of, place_parts
from edgekit.jobs.scene import found_beside, scene_of
from edgekit.jobs.trial import machine_key
from edgekit.jobs.variants import Lowered, Wanted, lowered_from
from edgekit.models.declared import declared_by
from edgekit.passes.protocol import Scene
from edgekit.plans.diffusion import NETWORK

_HELD_SEED, _JUDGED_SEED, _RECORDED_SEED = 500_000, 600_000, 700_000


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a pipeline made.

    Attributes:
        image_ms: Median of a picture.
        right: Share that the judge saw right, None without one.
        judged: Pictures it saw.
    """

    image_ms: float
    right: float | None
    judged: int


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of a pipeline on held-out prompts.

    Attributes:
        shown: What was found.
        latents: (N, C, h, w).
        images: (N, H, W, 3).
    """

    shown: Shown
    latents: NDArray[np.float32]
    images: NDArray[np.uint8]


def float_reference(ask: Ask, network: Network) -> Lowered:
    """Return a network in float32 for onnxruntime: what pictures are held against."""
    threads = int(ask.passport["cores_physical"]) if ask.here else 0
    return lowered_from(ask, network, None, Wanted(backend="onnxruntime", precision="fp32", threads=threads))


def gallery(ask: Ask, scene: Scene, network: Network, one: Lowered, *, judged: int) -> Gallery:
    """Return what a variant makes of the held-out prompts, and what the judge says; kept in the cache.

    Args:
        ask: The compile.
        scene: The pipeline.
        network: Whose text encoder and decoder go with it.
        one: The variant of the network that predicts noise.
        judged: Pictures to judge; 0 for none.
    """
    part = ask.checked.recipe.diffusion
    assert part is not None
    judge = found_beside(ask, part.judge, scene.pipeline) if part.judge and judged else None
    parts = parts_of(ask, network, one)
    inputs = {
        "parts": {n: x.digest for n, x in parts.items()}, "pipeline": scene.pipeline.sha256, "machine": machine_key(ask), "prompts": scene.held_out, "pool": scene.prompts if judge else (),
        "judge": digest_file(judge) if judge else "", "judged": judged, "schedule": scene.schedule, "steps": scene.steps,
        "guidance": scene.guidance, "seed": scene.seed, "code": versions.code(),
    }  # fmt: skip

    def make(folder: Path) -> None:
        watcher().phase(f"pictures of {one.wanted.plain}")
        place_parts(folder / "parts", scene, network, parts)
        with painting(folder / "parts", one.artifact) as open_:
            held = open_.paint(scene.held_out, seed=scene.seed + _HELD_SEED)
            right = _right(open_, scene, judge, judged) if judge else None
        np.save(folder / "latents.npy", held.latents)
        np.save(folder / "images.npy", held.images)
        shown = Shown(image_ms=float(np.median(held.ms)), right=right, judged=judged if judge else 0)
        store(folder / "shown.json", shown)

    folder = ask.cache.step("gallery", inputs, make)
    return Gallery(
        shown=restore(folder / "shown.json", Shown),
        latents=np.load(folder / "latents.npy"),
        images=np.load(folder / "images.npy"),
    )


def _right(open_: Any, scene: Scene, judge: Path, count: int) -> float:
    """Return the share of pictures in which the judge sees what the prompt names."""
    names, session = judge_session(judge)
    known = labelled(scene, names, judge)
    right = 0
    for k in range(count):
        prompt, label = known[k % len(known)]
        image = open_.paint([prompt], seed=scene.seed + _JUDGED_SEED + k).images
        right += int(judged_as(session, image)[0] == label)
        watcher().step("pictures for the judge", k + 1, count)
    return right / count


def refuse_judge(ask: Ask) -> None:
    """Refuse a judge that cannot judge the recipe's prompts, before anything is worked on.

    Raises:
        RecipeError: It is no classifier of pictures, or names nothing that stands in the prompts.
    """
    part = ask.checked.recipe.diffusion
    if part and part.judge and part.judged:
        scene = scene_of(ask)
        file = found_beside(ask, part.judge, scene.pipeline)
        labelled(scene, judge_session(file)[0], file)


def labelled(scene: Scene, names: Sequence[str], judge: Path) -> list[tuple[str, int]]:
    """Return the prompts that name a class of the judge, with it.

    Raises:
        RecipeError: None does.
    """
    pairs = [(p, label_of(p, names)) for p in (*scene.held_out, *scene.prompts)]
    known = [(p, k) for p, k in pairs if k is not None]
    if not known:
        raise RecipeError(
            f"{judge}: none of its classes ({', '.join(names[:4])}, …) stands in the prompts",
            hint="Give a judge whose class names are words of the prompts.",
        )
    return known


def judge_session(path: Path) -> tuple[tuple[str, ...], Any]:
    """Return a judge's class names and an open session.

    Raises:
        RecipeError: It is no classifier of RGB pictures with class names.
    """
    model = read_onnx(path)
    declared = declared_by(metadata_of(model), inputs_of(model), outputs_of(model))
    names = declared.answers.classes if declared.answers else ()
    if not names:
        raise RecipeError(
            f"{path}: says no class names", hint="Write them as metadata `names`: {0: cat, 1: dog}."
        )
    ort = need("onnxruntime", extra="host")
    return names, ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def judged_as(session: Any, images: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the class that a judge sees in each picture, (N, H, W, 3) uint8 RGB."""
    given = session.get_inputs()[0]
    side = given.shape[2:]
    found = []
    for image in images:
        other = isinstance(side[0], int) and image.shape[:2] != tuple(side)
        fitting = need("cv2", extra="host").resize(image, tuple(side[::-1])) if other else image
        pixels = fitting.transpose(2, 0, 1)[None].astype(np.float32) / 255
        found.append(int(session.run(None, {given.name: pixels})[0].ravel().argmax()))
    return np.array(found)


def label_of(prompt: str, names: Sequence[str]) -> int | None:
    """Return the class whose name stands in a prompt as a whole word, the longest where several do."""
    words = f" {' '.join(prompt.lower().replace(',', ' ').split())} "
    found = [k for k, n in enumerate(names) if f" {n.lower()} " in words]
    return max(found, key=lambda k: len(names[k])) if found else None


def errors_of(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> tuple[float, ...]:
    """Return the relative squared error of each picture's final latents."""
    return tuple(apart(a, b) for a, b in zip(found, wanted, strict=True))


def recorded(ask: Ask, scene: Scene, network: Network, count: int) -> list[dict[str, NDArray[Any]]]:
    """Return what the float network is asked while it makes pictures of calibration prompts, spread over prompts and steps.

    Args:
        ask: The compile.
        scene: The pipeline.
        network: In float32.
        count: Questions.
    """
    one = float_reference(ask, network)
    few = min(max(count // 4, 1), len(scene.prompts))
    prompts = [scene.prompts[k] for k in evenly(few, len(scene.prompts))]
    wanted = frozenset(evenly(count, len(prompts) * scene.steps))
    kept: list[Recorder] = []

    def watch(name: str, session: Session) -> Any:
        if name != NETWORK:
            return session
        kept.append(Recorder(session, wanted))
        return kept[0]

    watcher().phase("pictures for int8 ranges")
    with tempfile.TemporaryDirectory() as place:
        place_parts(Path(place) / "parts", scene, network, parts_of(ask, network, one))
        with painting(Path(place) / "parts", one.artifact, watch=watch) as open_:
            open_.paint(prompts, seed=scene.seed + _RECORDED_SEED)
    return kept[0].seen


def sheet(prompts: Sequence[str], rows: Mapping[str, NDArray[np.uint8]], path: Path) -> bytes:
    """Write pictures side by side as PNG, a row a pipeline, and return the file's bytes.

    Args:
        prompts: One a column.
        rows: By name, (N, H, W, 3) RGB.
        path: Of the file.
    """
    cv2 = need("cv2", extra="host")
    scale = max(1, 96 // next(iter(rows.values())).shape[1])
    count = min(len(prompts), 8)
    lines = []
    for images in rows.values():
        large = [np.kron(i, np.ones((scale, scale, 1), np.uint8)) for i in images[:count]]
        lines.append(
            np.concatenate([np.pad(i, ((2, 2), (2, 2), (0, 0)), constant_values=255) for i in large], axis=1)
        )
    _, data = cv2.imencode(".png", np.concatenate(lines)[..., ::-1])
    write_bytes(path, data.tobytes())
    png: bytes = data.tobytes()
    return png
