"""Draw seeded thermal street scenes with people, cars, bicycles and lights, and their boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import need

CLASSES = ("person", "car", "bicycle", "light")

# Height and width in metres as a camera on a car sees them: people upright, cars from the end or the
# side, bicycles with a rider, traffic lights as their housing alone.
_METRES = {"person": (1.72, 0.62), "car": (1.5, 1.8), "bicycle": (1.7, 1.6), "light": (1.0, 0.36)}
# Cars and people rule the street, bicycles are rare: the imbalance of driving data.
_SHARE = (0.33, 0.50, 0.04, 0.13)
_NEAREST, _FARTHEST = 8.0, 110.0
_CAMERA_HEIGHT = 1.5
_SS = 3  # supersampling: a far person is 12 px high
_LEAST_SEEN = 0.4


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image with its objects.

    Attributes:
        image: (H, W) uint8, one channel.
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels: what can be seen of each object.
        classes: (N,) int64, indices into CLASSES.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _View:
    """Where the camera looks: everything that all objects of a scene share."""

    width: int
    height: int
    horizon: float
    focal: float
    air: float
    ground: float
    hot_ground: bool


def draw_scene(*, seed: int, split: str, index: int, size: int = 640) -> Scene:
    """Return scene `index` of `split`: the same arguments give the same pixels.

    Args:
        seed: The data set's seed.
        split: "train" or "val"; the two draw from streams that never meet.
        index: The scene's number in its split.
        size: Width of the image in pixels; its height is 4/5 of it, as thermal sensors have it.
    """
    rng = np.random.default_rng([seed, {"train": 3, "val": 4}[split], index])
    view = _view(rng, size)
    image = _street(rng, view)
    owner = np.full(image.shape, -1, np.int32)
    placed: list[tuple[int, int]] = []
    # Far ones first: near ones hide them.
    for depth, label in _plan(rng):
        patch = _patch(rng, view, CLASSES[label], depth)
        whole = _paste(rng, view, image, owner, patch, CLASSES[label], depth, len(placed))
        placed.append((label, whole))
    boxes, classes = _seen(owner, placed)
    return Scene(
        image=_sensor(rng, image),
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
        classes=np.asarray(classes, np.int64),
    )


def _view(rng: np.random.Generator, size: int) -> _View:
    height = size * 4 // 5
    hot = bool(rng.uniform() < 0.25)
    return _View(
        width=size, height=height, horizon=height * float(rng.uniform(0.36, 0.5)),
        focal=size * float(rng.uniform(0.85, 1.15)), air=float(rng.uniform(15, 45)),
        # A road in the sun is warmer than people: their contrast turns round.
        ground=float(rng.uniform(150, 190) if hot else rng.uniform(60, 105)), hot_ground=hot,
    )  # fmt: skip


def _plan(rng: np.random.Generator) -> list[tuple[float, int]]:
    """Return depth in metres and class of every object, the farthest first."""
    count = int(rng.integers(6, 21))
    labels = rng.choice(len(CLASSES), count, p=_SHARE)
    # Even in 1 / depth: as many near as a lens shows.
    depths = 1 / rng.uniform(1 / _FARTHEST, 1 / _NEAREST, count)
    return sorted(((float(d), int(k)) for d, k in zip(depths, labels, strict=True)), reverse=True)


def _street(rng: np.random.Generator, view: _View) -> NDArray[np.float32]:
    """Return sky, houses with warm windows, trees, road and verges, (H, W) float32."""
    cv2 = need("cv2", extra="host")
    h, w, line = view.height, view.width, int(view.horizon)
    image = np.empty((h, w), np.float32)
    image[:line] = view.air + np.linspace(-8, 14, line, dtype=np.float32)[:, None]
    below = np.linspace(0, 1, h - line, dtype=np.float32)[:, None]
    image[line:] = view.ground * (0.82 + 0.18 * below)
    x = -float(rng.uniform(0, 60))
    while x < w:
        wide, high = float(rng.uniform(50, 170)), float(rng.uniform(0.15, 0.95)) * line
        if rng.uniform() < 0.7:
            _house(rng, image, x, line, wide, high, view)
        x += wide * float(rng.uniform(0.9, 1.3))
    edge = float(rng.uniform(0.15, 0.4)) * w
    middle = w * float(rng.uniform(0.4, 0.6))
    road = np.array([(middle - edge * 0.06, line), (middle + edge * 0.06, line), (w + edge, h), (-edge, h)])
    cv2.fillPoly(image, [road.astype(np.int32)], view.ground * float(rng.uniform(0.9, 1.15)), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 7))):
        spot = (int(rng.uniform(0, w)), int(line - rng.uniform(-10, 40)))
        _bush(rng, image, spot, float(rng.uniform(12, 55)), view.air + float(rng.uniform(5, 30)))
    for cells in (6, 24, 90):
        grid = rng.normal(size=(cells, cells)).astype(np.float32)
        image += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) * 3.5
    return image


def _house(
    rng: np.random.Generator, image: NDArray[np.float32], x: float, line: int, wide: float, high: float, view: _View
) -> None:  # fmt: skip
    cv2 = need("cv2", extra="host")
    wall = view.air + float(rng.uniform(15, 60))
    foot = line + int(rng.uniform(0, 12))
    cv2.rectangle(image, (int(x), int(line - high)), (int(x + wide), foot), wall, -1)
    step = float(rng.uniform(12, 24))
    for top in np.arange(line - high + 6, line - 10, step):
        for left in np.arange(x + 5, x + wide - 8, step):
            tone = wall + (float(rng.uniform(25, 80)) if rng.uniform() < 0.3 else -8.0)
            corner = (int(left + step * 0.45), int(top + step * 0.5))
            cv2.rectangle(image, (int(left), int(top)), corner, tone, -1)


def _bush(
    rng: np.random.Generator, image: NDArray[np.float32], spot: tuple[int, int], radius: float, tone: float
) -> None:
    cv2 = need("cv2", extra="host")
    for _ in range(8):
        at = (np.array(spot) + rng.normal(0, radius * 0.5, 2)).astype(int).tolist()
        shade = tone + float(rng.normal(0, 6))
        cv2.circle(image, at, max(int(radius * 0.5), 1), shade, -1, cv2.LINE_AA)


def _patch(rng: np.random.Generator, view: _View, name: str, depth: float) -> NDArray[np.float32]:
    """Return temperature and alpha, (H, W, 2) float32, of one object at its size in the image."""
    cv2 = need("cv2", extra="host")
    tall, wide = (m * view.focal / depth * float(rng.uniform(0.9, 1.1)) for m in _METRES[name])
    if name == "car" and rng.uniform() < 0.4:
        wide *= 2.4
    rows, columns = max(round(tall), 3), max(round(wide), 2)
    canvas = np.zeros((rows * _SS, columns * _SS, 2), np.float32)
    {"person": _person, "car": _car, "bicycle": _bicycle, "light": _light}[name](rng, view, canvas)
    # The patch is premultiplied, so that shrinking does not mix in the temperature of nothing.
    canvas[..., 0] *= canvas[..., 1]
    small: NDArray[np.float32] = cv2.resize(canvas, (columns, rows), interpolation=cv2.INTER_AREA)
    return small


def _shape(
    canvas: NDArray[np.float32], kind: str, at: tuple[float, float, float, float], tone: float
) -> None:
    """Fill a box or an ellipse given by shares of the canvas (x1, y1, x2, y2)."""
    cv2 = need("cv2", extra="host")
    h, w = canvas.shape[:2]
    x1, x2 = int(at[0] * w), max(int(at[2] * w) - 1, int(at[0] * w))
    y1, y2 = int(at[1] * h), max(int(at[3] * h) - 1, int(at[1] * h))
    if kind == "box":
        cv2.rectangle(canvas, (x1, y1), (x2, y2), (tone, 1.0), -1)
    else:
        middle, half = ((x1 + x2) // 2, (y1 + y2) // 2), (max((x2 - x1) // 2, 1), max((y2 - y1) // 2, 1))
        cv2.ellipse(canvas, middle, half, 0, 0, 360, (tone, 1.0), -1)


def _person(rng: np.random.Generator, view: _View, canvas: NDArray[np.float32]) -> None:
    skin = float(rng.uniform(185, 235)) if not view.hot_ground else float(rng.uniform(115, 150))
    cloth = skin - float(rng.uniform(12, 55))
    spread = float(rng.uniform(0.02, 0.2))
    for left in (0.5 - spread - 0.16, 0.5 + spread - 0.06):
        _shape(
            canvas, "box", (max(left, 0), 0.5, min(left + 0.24, 1), 1.0), cloth - float(rng.uniform(0, 14))
        )
    _shape(canvas, "ellipse", (0.12, 0.14, 0.88, 0.62), cloth)
    _shape(canvas, "ellipse", (0.32, 0.0, 0.68, 0.17), skin)


def _car(rng: np.random.Generator, view: _View, canvas: NDArray[np.float32]) -> None:
    runs = rng.uniform() < 0.6
    body = view.ground + float(rng.uniform(-35, 30))
    glass = view.air + float(rng.uniform(10, 40))
    warm = float(rng.uniform(170, 235)) if runs else body + float(rng.uniform(-6, 12))
    _shape(canvas, "box", (0.14, 0.0, 0.86, 0.5), body)
    _shape(canvas, "box", (0.2, 0.07, 0.8, 0.4), glass)
    _shape(canvas, "box", (0.0, 0.38, 1.0, 0.84), body + 6)
    for left in (0.06, 0.72):
        _shape(canvas, "ellipse", (left, 0.68, left + 0.22, 1.0), warm - 15)
    _shape(canvas, "box", (0.3, 0.52, 0.7, 0.7), warm)


def _bicycle(rng: np.random.Generator, view: _View, canvas: NDArray[np.float32]) -> None:
    cv2 = need("cv2", extra="host")
    h, w = canvas.shape[:2]
    frame = view.ground * 0.6
    for x in (0.24, 0.76):
        cv2.circle(canvas, (int(x * w), int(0.79 * h)), int(0.2 * h), (frame, 1.0), max(int(0.035 * h), 1))
    cv2.line(
        canvas,
        (int(0.24 * w), int(0.79 * h)),
        (int(0.76 * w), int(0.6 * h)),
        (frame, 1.0),
        max(int(0.04 * h), 1),
    )
    skin = float(rng.uniform(180, 230)) if not view.hot_ground else float(rng.uniform(115, 150))
    _shape(canvas, "ellipse", (0.33, 0.14, 0.66, 0.6), skin - float(rng.uniform(10, 45)))
    _shape(canvas, "box", (0.42, 0.5, 0.58, 0.85), skin - 35)
    _shape(canvas, "ellipse", (0.44, 0.0, 0.62, 0.17), skin)


def _light(rng: np.random.Generator, view: _View, canvas: NDArray[np.float32]) -> None:
    housing = view.air + float(rng.uniform(20, 70))
    _shape(canvas, "box", (0.0, 0.0, 1.0, 1.0), housing)
    lit = int(rng.integers(3))
    for k in range(3):
        tone = float(rng.uniform(180, 245)) if k == lit else housing - 14
        _shape(canvas, "ellipse", (0.2, 0.05 + 0.31 * k, 0.8, 0.33 + 0.31 * k), tone)


def _paste(
    rng: np.random.Generator, view: _View, image: NDArray[np.float32], owner: NDArray[np.int32],
    patch: NDArray[np.float32], name: str, depth: float, number: int,
) -> int:  # fmt: skip
    """Blend an object in where its depth puts it; return how many pixels it would cover unhidden."""
    rows, columns = patch.shape[:2]
    per_metre = view.focal / depth
    # A light's housing ends 2.6 to 4.4 m above the road, everything else stands on it.
    above = float(rng.uniform(2.6, 4.4)) if name == "light" else 0.0
    left = round(float(rng.uniform(-0.1, 1.05)) * view.width - columns / 2)
    top = round(view.horizon + (_CAMERA_HEIGHT - above) * per_metre) - rows
    if name == "light":
        cut_pole = slice(max(top + rows, 0), max(int(view.horizon + _CAMERA_HEIGHT * per_metre), 0))
        x = left + columns // 2
        half = max(int(0.06 * per_metre), 1)
        image[cut_pole, max(x - half, 0) : max(x + half, 0)] = view.air + 22
        owner[cut_pole, max(x - half, 0) : max(x + half, 0)] = -1
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + columns, view.width), min(top + rows, view.height)
    full = int((patch[..., 1] > 0.35).sum())
    if x1 >= x2 or y1 >= y2:
        return full
    part = patch[y1 - top : y2 - top, x1 - left : x2 - left]
    image[y1:y2, x1:x2] = image[y1:y2, x1:x2] * (1 - part[..., 1]) + part[..., 0]
    owner[y1:y2, x1:x2][part[..., 1] > 0.35] = number
    return full


def _seen(owner: NDArray[np.int32], placed: list[tuple[int, int]]) -> tuple[list[Any], list[int]]:
    """Return the boxes around the visible pixels of objects of which enough is visible."""
    boxes, classes = [], []
    for number, (label, whole) in enumerate(placed):
        rows, columns = np.nonzero(owner == number)
        if len(rows) < max(_LEAST_SEEN * whole, 6):
            continue
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        classes.append(label)
    return boxes, classes


def _sensor(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the scene as an uncooled sensor gives it: gain, blur, column noise and pixel noise."""
    cv2 = need("cv2", extra="host")
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 1.3)))
    image = (image - 110) * float(rng.uniform(0.65, 1.15)) + float(rng.uniform(90, 130))
    image = image + rng.normal(size=(1, image.shape[1])).astype(np.float32) * float(rng.uniform(0.3, 2.2))
    image = image + rng.normal(size=image.shape).astype(np.float32) * float(rng.uniform(1.5, 6.5))
    pixels: NDArray[np.uint8] = np.clip(image, 0, 255).astype(np.uint8)
    return pixels
