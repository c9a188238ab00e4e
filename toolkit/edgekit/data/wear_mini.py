"""Draw windows of a wrist-worn accelerometer: six small motions under gravity, with rare knocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.codecs.sensor import Sensor
from edgekit.data.window import Window

RATE_HZ, SAMPLES, RANGE_G = 50.0, 128, 8.0
SENSOR = Sensor(bits=12, signed=True, axes=("x", "y", "z"), rate_hz=RATE_HZ)
_COUNTS_A_G = 2048 / RANGE_G
_NOISE_G = 0.012
_KNOCKS = 0.3
# Training and validation come from people who never meet.
_PEOPLE = {"train": (0, 24), "val": (1000, 1012)}


@dataclass(frozen=True, kw_only=True)
class _Motion:
    """One activity: how fast, how its energy is spread over overtones and axes, and whether it comes in bursts."""

    hz: tuple[float, float]
    overtones: tuple[float, ...]
    axes: tuple[float, float, float]
    bursts: bool = False


# Amplitudes are around 0.04 to 0.09 g on a range of 8 g: 10 to 23 of 4,096 steps.
_MOTIONS = {
    "stirring": _Motion(hz=(1.1, 1.9), overtones=(1.0, 0.2), axes=(0.9, 0.7, 0.3)),
    "brushing": _Motion(hz=(3.2, 5.0), overtones=(1.0, 0.3), axes=(0.9, 0.5, 0.4)),
    "typing": _Motion(hz=(5.0, 8.0), overtones=(1.0, 0.6), axes=(0.2, 0.3, 1.0), bursts=True),
    "strolling": _Motion(hz=(1.5, 2.1), overtones=(1.0, 0.8, 0.4), axes=(0.4, 0.5, 1.0)),
    "wiping": _Motion(hz=(1.0, 2.0), overtones=(1.0, 0.0, 0.4), axes=(1.0, 0.2, 0.1)),
    "tremor": _Motion(hz=(4.5, 6.5), overtones=(1.0, 0.2), axes=(0.7, 0.6, 0.5)),
}
CLASSES = tuple(_MOTIONS)


def draw_window(*, seed: int, split: str, index: int, size: int = SAMPLES) -> Window:
    """Return window `index` of `split`: the same arguments give the same counts.

    Args:
        seed: The data set's seed.
        split: "train" or "val"; each has its own people.
        index: The window's number in its split; classes take turns.
        size: Samples, at 50 Hz.
    """
    rng = np.random.default_rng([seed, {"train": 5, "val": 6}[split], index])
    label = index % len(CLASSES)
    first, last = _PEOPLE[split]
    person = np.random.default_rng([seed, 9, int(rng.integers(first, last))])
    motion = _MOTIONS[CLASSES[label]]
    g = _motion(rng, person, motion, size) + _gravity(rng, person) + rng.normal(0, _NOISE_G, (size, 3))
    g += _knock(rng, size)
    counts = np.clip(np.rint(g * _COUNTS_A_G), -2048, 2047).astype(np.int16)
    return Window(signal=counts, label=label)


def _motion(
    rng: np.random.Generator, person: np.random.Generator, motion: _Motion, size: int
) -> NDArray[np.float64]:
    """Return (size, 3) in g: overtones of one pace, each axis with its own share and phase."""
    t = np.arange(size) / RATE_HZ
    # A person has a pace and a strength; each window differs a little from it.
    pace = person.uniform(*motion.hz) * rng.normal(1, 0.04)
    strength = person.uniform(0.04, 0.09) * rng.uniform(0.6, 1.3)
    weights = np.array(motion.axes) * person.uniform(0.5, 1.5, 3)
    wave = np.zeros((size, 3))
    for k, share in enumerate(motion.overtones, 1):
        phases = rng.uniform(0, 2 * np.pi) + person.uniform(-0.5, 0.5, 3) + k * np.array([0.0, 1.6, 0.8])
        wave += share * np.sin(2 * np.pi * pace * k * t[:, None] + phases)
    if motion.bursts:
        wave *= (np.sin(2 * np.pi * person.uniform(0.5, 1.0) * t + rng.uniform(0, 6)) > 0)[:, None]
    return strength * wave * weights


def _gravity(rng: np.random.Generator, person: np.random.Generator) -> NDArray[np.float64]:
    """Return (3,) in g: how the strap lies on this wrist, and how the arm is held in this window."""
    direction = np.array([0.2, 0.3, 0.9]) + person.normal(0, 0.1, 3) + rng.normal(0, 0.04, 3)
    unit: NDArray[np.float64] = direction / np.linalg.norm(direction)
    return unit


def _knock(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Return (size, 3) in g: in some windows two or three samples of a hard knock."""
    found = np.zeros((size, 3))
    if rng.uniform() < _KNOCKS:
        at = int(rng.integers(0, size - 3))
        found[at : at + int(rng.integers(2, 4))] = rng.uniform(-6, 6, 3)
    return found
