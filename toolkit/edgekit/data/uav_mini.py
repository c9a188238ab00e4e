"""Draw seeded aerial scenes with small vehicles and people, and their boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need

CLASSES = ("person", "motorbike", "car", "truck", "bus")

# Length and width on the ground in metres. People are seen at a slant, so a person is 2 m long.
_METRES = {
    "person": (2.0, 1.4),
    "motorbike": (2.5, 1.3),
    "car": (4.6, 1.9),
    "truck": (7.6, 2.4),
    "bus": (11.4, 2.6),
}
# 2.4 to 3.5 px a metre puts people at 4 to 7 px and buses at 27 to 40 px on a 640 px image.
_PX_PER_METRE = (2.4, 3.5)
_SHARE = (0.30, 0.14, 0.36, 0.12, 0.08)
_GROUNDS = ((62, 92, 70), (78, 104, 118), (112, 118, 120), (120, 150, 168), (66, 80, 92))
_PAINTS = (
    (235, 235, 235), (30, 30, 32), (120, 122, 126), (170, 174, 178), (40, 40, 170),
    (150, 70, 35), (60, 120, 60), (50, 150, 200), (90, 60, 110),
)  # fmt: skip
_SS = 4  # supersampling: a 5 px person drawn at its own size would be a blot


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image with its objects.

    Attributes:
        image: (H, W, 3) uint8, BGR; of a raw set (H, W) uint16.
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels, inside the image.
        classes: (N,) int64, indices into CLASSES.
    """

    image: NDArray[Any]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


def draw_scene(*, seed: int, split: str, index: int, size: int = 640) -> Scene:
    """Return scene `index` of `split`: the same arguments give the same pixels.

    Args:
        seed: The data set's seed.
        split: "train" or "val"; the two draw from streams that never meet.
        index: The scene's number in its split.
        size: Side of the square image in pixels. The ground resolution does not depend on it.
    """
    rng = np.random.default_rng([seed, {"train": 1, "val": 2}[split], index])
    scale = float(rng.uniform(*_PX_PER_METRE))
    sun = rng.uniform(0, 2 * np.pi)
    shadow = (float(np.cos(sun)), float(np.sin(sun)), float(rng.uniform(0.25, 0.6)))
    image = _ground(rng, size)
    roads = _roads(rng, image, scale)
    _roofs(rng, image, scale, shadow)
    boxes, classes = _objects(rng, image, scale, shadow, roads)
    _trees(rng, image, scale, shadow, boxes)
    return Scene(
        image=_camera(rng, image),
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
        classes=np.asarray(classes, np.int64),
    )


def _ground(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Return a textured ground (size, size, 3) float32: noise at five scales, two soils blended."""
    cv2 = need("cv2", extra="host")
    first, second = (np.array(_GROUNDS[i], np.float32) for i in rng.choice(len(_GROUNDS), 2))
    noise = np.zeros((size, size), np.float32)
    for cells in (3, 9, 27, 81, 243):
        grid = rng.normal(size=(cells, cells)).astype(np.float32)
        noise += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) / np.sqrt(cells / 3)
    blend = np.clip(0.5 + 0.35 * noise, 0, 1)[..., None]
    fine = cv2.resize(rng.normal(size=(size // 2, size // 2)).astype(np.float32), (size, size))
    ground = first * blend + second * (1 - blend) + (9 * fine + 8 * noise)[..., None]
    return np.ascontiguousarray(ground, np.float32)


def _roads(
    rng: np.random.Generator, image: NDArray[np.float32], scale: float
) -> list[tuple[float, float, float, float]]:
    """Draw one to three straight roads; return each as x, y, angle and half width."""
    cv2 = need("cv2", extra="host")
    size = image.shape[0]
    roads = []
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(0.1, 0.9, 2) * size
        angle, half = rng.uniform(0, np.pi), rng.uniform(4.0, 8.5) * scale
        along = np.array([np.cos(angle), np.sin(angle)]) * 2 * size
        ends = [tuple(int(v) for v in (x, y) + s * along) for s in (-1, 1)]
        grey = float(rng.uniform(70, 125))
        cv2.line(image, *ends, (grey + 12, grey + 10, grey + 8), int(half * 2 + 2 * scale), cv2.LINE_AA)
        cv2.line(image, *ends, (grey, grey, grey), int(half * 2), cv2.LINE_AA)
        for k in np.arange(-size * 1.5, size * 1.5, 6 * scale):
            a = (x + k * np.cos(angle), y + k * np.sin(angle))
            b = (a[0] + 2.5 * scale * np.cos(angle), a[1] + 2.5 * scale * np.sin(angle))
            cv2.line(image, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), (205, 210, 212), 1, cv2.LINE_AA)
        roads.append((x, y, angle, half))
    return roads


def _roofs(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    scale: float,
    shadow: tuple[float, float, float],
) -> None:
    """Draw up to nine roofs with ridges, boxes on top and cast shadows."""
    cv2 = need("cv2", extra="host")
    size = image.shape[0]
    for _ in range(int(rng.integers(2, 10) * size / 640 + 0.5)):
        centre, sides = rng.uniform(0, size, 2), rng.uniform(9, 26, 2) * scale
        angle = float(rng.uniform(0, 90))
        paint = np.array([rng.uniform(70, 120), rng.uniform(75, 130), rng.uniform(90, 190)])
        fall = np.array(shadow[:2]) * shadow[2] * 7 * scale
        cast = np.zeros(image.shape[:2], np.float32)
        cv2.fillPoly(cast, [_corners(centre + fall, sides, angle)], 0.5, cv2.LINE_AA)
        image *= (1 - cast)[..., None]
        cv2.fillPoly(image, [_corners(centre, sides, angle)], paint.tolist(), cv2.LINE_AA)
        half = _corners(centre, (sides[0], sides[1] * 0.5), angle)
        cv2.polylines(image, [half], True, (paint * 0.82).tolist(), 1, cv2.LINE_AA)
        for _ in range(int(rng.integers(0, 4))):
            spot = centre + rng.uniform(-0.3, 0.3, 2) * sides
            unit = rng.uniform(1.2, 3.5, 2) * scale
            tone = float(rng.uniform(130, 215))
            cv2.fillPoly(image, [_corners(spot, unit, angle)], (tone, tone, tone), cv2.LINE_AA)


def _corners(centre: Any, sides: Any, angle: float) -> NDArray[np.int32]:
    cv2 = need("cv2", extra="host")
    (x, y), (w, h) = centre, sides
    box: NDArray[np.int32] = np.asarray(
        cv2.boxPoints(((float(x), float(y)), (float(w), float(h)), angle)), np.int32
    )
    return box


def _objects(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    scale: float,
    shadow: tuple[float, float, float],
    roads: list[tuple[float, float, float, float]],
) -> tuple[list[list[float]], list[int]]:
    """Draw the vehicles and people; return the boxes of what can still be seen."""
    size = image.shape[0]
    count = max(3, round(int(rng.integers(30, 85)) * (size / 640) ** 2))
    boxes: list[list[float]] = []
    classes: list[int] = []
    for label in rng.choice(len(CLASSES), count, p=_SHARE):
        x, y, angle = _place(rng, size, CLASSES[label], roads)
        length, width = (m * scale * float(rng.uniform(0.92, 1.08)) for m in _METRES[CLASSES[label]])
        patch = _patch(rng, CLASSES[label], length, width, angle)
        box = _visible_box(patch, size, x, y)
        if box is None or any(_overlap(box, other) > 0.3 for other in boxes):
            continue
        _paste(image, patch, x, y, shadow, scale)
        boxes.append(box)
        classes.append(int(label))
    return boxes, classes


def _place(
    rng: np.random.Generator,
    size: int,
    name: str,
    roads: list[tuple[float, float, float, float]],
) -> tuple[float, float, float]:
    """Return x, y in pixels and a heading in radians: vehicles mostly follow a road."""
    on_road = rng.uniform() < (0.25 if name == "person" else 0.75)
    if not on_road:
        x, y = rng.uniform(4, size - 4, 2)
        return float(x), float(y), float(rng.uniform(0, 2 * np.pi))
    cx, cy, angle, half = roads[int(rng.integers(len(roads)))]
    along, across = rng.uniform(-0.7, 0.7) * size, rng.uniform(-0.8, 0.8) * half
    x = cx + along * np.cos(angle) - across * np.sin(angle)
    y = cy + along * np.sin(angle) + across * np.cos(angle)
    turn = angle + (np.pi if across > 0 else 0) + rng.normal(0, 0.06)
    return float(x), float(y), float(turn)


def _patch(
    rng: np.random.Generator, name: str, length: float, width: float, angle: float
) -> NDArray[np.float32]:
    """Return a square BGRA patch, float32, alpha in [0, 1], the object at its centre."""
    cv2 = need("cv2", extra="host")
    side = int(np.ceil(length + 4)) | 1
    canvas = np.zeros((side * _SS, side * _SS, 4), np.float32)
    draw = {"person": _person, "motorbike": _motorbike}.get(name, _vehicle)
    draw(rng, canvas, name, length * _SS, width * _SS)
    middle = ((side * _SS - 1) / 2, (side * _SS - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, -float(np.degrees(angle)), 1.0)
    canvas = cv2.warpAffine(canvas, turn, canvas.shape[1::-1], flags=cv2.INTER_LINEAR)
    small: NDArray[np.float32] = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return small


def _rect(canvas: NDArray[np.float32], x: tuple[float, float], half: float, paint: tuple[float, ...]) -> None:
    """Fill an upright rectangle given by its span from the centre, opaque."""
    cv2 = need("cv2", extra="host")
    c = canvas.shape[0] / 2
    low, high = (int(c + x[0]), int(c - half)), (int(c + x[1]), int(c + half))
    cv2.rectangle(canvas, low, high, (*paint, 1.0), -1)


def _vehicle(
    rng: np.random.Generator, canvas: NDArray[np.float32], name: str, length: float, width: float
) -> None:
    paint = np.array(_PAINTS[int(rng.integers(len(_PAINTS)))], np.float32) + rng.normal(0, 8, 3)
    front, half = length / 2, width / 2
    if name == "truck":
        box = np.array(_PAINTS[int(rng.integers(4))], np.float32) * 0.95
        _rect(canvas, (-front, front * 0.42), half, tuple(box.tolist()))
        _rect(canvas, (front * 0.5, front), half * 0.92, tuple(paint.tolist()))
        _rect(canvas, (front * 0.8, front * 0.92), half * 0.8, (45, 40, 38))
        return
    _rect(canvas, (-front, front), half, tuple(paint.tolist()))
    if name == "bus":
        for k in (-0.6, -0.1, 0.4):
            _rect(canvas, (k * front, (k + 0.25) * front), half * 0.45, tuple((paint * 0.7).tolist()))
        _rect(canvas, (front * 0.92, front), half * 0.9, (40, 36, 34))
        return
    _rect(canvas, (front * 0.22, front * 0.48), half * 0.82, (48, 42, 38))
    _rect(canvas, (-front * 0.72, -front * 0.5), half * 0.78, (52, 46, 42))


def _person(
    rng: np.random.Generator, canvas: NDArray[np.float32], _: str, length: float, width: float
) -> None:
    cv2 = need("cv2", extra="host")
    c = int(canvas.shape[0] / 2)
    cloth = (rng.uniform(20, 235, 3)).tolist()
    trousers = (rng.uniform(15, 120, 3)).tolist()
    legs = (int(c - length * 0.22), c)
    cv2.ellipse(canvas, legs, (int(length * 0.3), int(width * 0.3)), 0, 0, 360, (*trousers, 1.0), -1)
    chest = (int(c + length * 0.12), c)
    cv2.ellipse(canvas, chest, (int(length * 0.22), int(width / 2)), 0, 0, 360, (*cloth, 1.0), -1)
    skin = np.array([95, 125, 175]) * rng.uniform(0.35, 1.1)
    cv2.circle(canvas, (int(c + length * 0.34), c), int(length * 0.16), (*skin.tolist(), 1.0), -1)


def _motorbike(
    rng: np.random.Generator, canvas: NDArray[np.float32], _: str, length: float, width: float
) -> None:
    cv2 = need("cv2", extra="host")
    c = int(canvas.shape[0] / 2)
    _rect(canvas, (-length / 2, length / 2), width * 0.16, (30, 30, 34))
    cloth = (rng.uniform(20, 235, 3)).tolist()
    cv2.ellipse(canvas, (c, c), (int(length * 0.2), int(width / 2)), 0, 0, 360, (*cloth, 1.0), -1)
    helmet = float(rng.uniform(20, 240))
    cv2.circle(canvas, (int(c + length * 0.06), c), int(width * 0.24), (helmet, helmet, helmet, 1.0), -1)


def _visible_box(patch: NDArray[np.float32], size: int, x: float, y: float) -> list[float] | None:
    """Return the patch's box inside the image, None where more than half of it is outside."""
    left, top = _corner(patch, x, y)
    rows, columns = np.nonzero(patch[..., 3] > 0.35)
    if not len(rows):
        return None
    whole = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)
    whole += (left, top, left, top)
    box = np.clip(whole, 0, size)
    return [float(v) for v in box] if _area(box) >= 0.5 * _area(whole) else None


def _corner(patch: NDArray[np.float32], x: float, y: float) -> tuple[int, int]:
    return round(x) - patch.shape[0] // 2, round(y) - patch.shape[0] // 2


def _paste(
    image: NDArray[np.float32],
    patch: NDArray[np.float32],
    x: float,
    y: float,
    shadow: tuple[float, float, float],
    scale: float,
) -> None:
    """Blend the patch and its shadow into the image."""
    left, top = _corner(patch, x, y)
    dx, dy = (round(v * shadow[2] * 1.6 * scale) for v in shadow[:2])
    _blend(image, np.zeros((*patch.shape[:2], 3), np.float32), patch[..., 3] * 0.5, left + dx, top + dy)
    colour: Any = patch[..., :3] / np.maximum(patch[..., 3:], np.float32(1e-3))
    _blend(image, colour, patch[..., 3], left, top)


def _blend(
    image: NDArray[np.float32],
    colour: NDArray[np.float32],
    alpha: NDArray[np.float32],
    left: int,
    top: int,
) -> None:
    size, side = image.shape[0], alpha.shape[0]
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, size), min(top + side, size)
    if x1 >= x2 or y1 >= y2:
        return
    cut = (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))
    a = alpha[cut][..., None]
    view = image[y1:y2, x1:x2]
    view *= 1 - a
    view += a * colour[cut]


def _area(box: Any) -> float:
    x1, y1, x2, y2 = box
    return float(max(x2 - x1, 0) * max(y2 - y1, 0))


def _overlap(a: list[float], b: list[float]) -> float:
    """Return the share of the smaller box that the two have in common."""
    common = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return common / max(min(_area(a), _area(b)), 1e-6)


def _trees(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    scale: float,
    shadow: tuple[float, float, float],
    boxes: list[list[float]],
) -> None:
    """Draw tree crowns; some hide a part of an object, none hides more than about half of one."""
    cv2 = need("cv2", extra="host")
    size = image.shape[0]
    for _ in range(int(rng.integers(4, 28) * (size / 640) ** 2 + 0.5)):
        x, y = rng.uniform(0, size, 2)
        radius = float(rng.uniform(1.2, 4.0)) * scale
        crown = (x - radius, y - radius, x + radius, y + radius)
        if any(_overlap(list(crown), b) > 0.45 for b in boxes):
            continue
        fall = np.array(shadow[:2]) * shadow[2] * 4 * scale
        cast = (int(x + fall[0]), int(y + fall[1]))
        cv2.circle(image, cast, int(radius), (32.0, 40.0, 36.0), -1, cv2.LINE_AA)
        green = np.array([rng.uniform(25, 60), rng.uniform(70, 125), rng.uniform(35, 80)])
        for _ in range(7):
            spot = (np.array([x, y]) + rng.normal(0, radius * 0.45, 2)).astype(int).tolist()
            tone = (green * rng.uniform(0.7, 1.25)).tolist()
            cv2.circle(image, spot, max(int(radius * 0.55), 1), tone, -1, cv2.LINE_AA)


def _camera(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the scene as a camera gives it: exposure, haze, blur, motion and sensor noise."""
    cv2 = need("cv2", extra="host")
    image = image * rng.uniform(0.65, 1.2) + rng.uniform(0, 22)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.35, 0.8)))
    if rng.uniform() < 0.25:
        kernel = np.zeros((3, 3), np.float32)
        kernel[1, :] = 1 / 3
        image = cv2.filter2D(image, -1, kernel if rng.uniform() < 0.5 else kernel.T)
    noise = rng.normal(size=image.shape).astype(np.float32) * float(rng.uniform(1.5, 6.0))
    pixels: NDArray[np.uint8] = np.clip(image + noise, 0, 255).astype(np.uint8)
    return pixels
