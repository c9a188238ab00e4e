"""Draw detections or rankings onto a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.answers.detect import Detections
from edgekit.core.lazy import need

# Distinct at small sizes and for red-green blindness; BGR.
_LABELLED_PX = 100
_COLOURS = ((0, 114, 230), (178, 114, 0), (115, 158, 0), (66, 228, 240), (167, 121, 204), (233, 180, 86))


def draw(frame: NDArray[np.uint8], answer: Any) -> NDArray[np.uint8]:
    """Return a copy of the frame with boxes and labels, or with the ranking's first lines.

    Raises:
        MissingError: cv2 is not installed.
    """
    cv2 = need("cv2", extra="vision", why="draw")
    image = frame.copy()
    if not isinstance(answer, Detections):
        for k, row in enumerate(answer.plain()[:3]):
            text = f"{row['name'] or row['class']} {row['score']:.2f}"
            cv2.putText(image, text, (8, 22 + 20 * k), cv2.FONT_HERSHEY_SIMPLEX, 0.6, _COLOURS[0], 2)
        return image
    scale = max(min(image.shape[:2]) / 1600, 0.4)
    for box, score, label in zip(answer.boxes, answer.scores, answer.classes, strict=True):
        colour = _COLOURS[int(label) % len(_COLOURS)]
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(image, (x1 - 1, y1 - 1), (x2 + 1, y2 + 1), colour, 1)
        if x2 - x1 >= _LABELLED_PX * scale:
            _text(cv2, image, f"{_name(answer, int(label))} {score:.2f}", (x1, max(y1 - 4, 9)), colour, scale)
    for row, label in enumerate(sorted({int(k) for k in answer.classes})):
        # Labels would hide boxes of a few pixels: a legend names their colours.
        count = int((answer.classes == label).sum())
        place = (8, round((18 + 18 * row) * max(scale / 0.4, 1)))
        _text(
            cv2, image, f"{count} {_name(answer, label)}", place, _COLOURS[label % len(_COLOURS)], scale * 1.1
        )
    return image


def _name(answer: Detections, label: int) -> str:
    return answer.names[label] if label < len(answer.names) else str(label)


def _text(
    cv2: Any, image: Any, text: str, place: tuple[int, int], colour: tuple[int, int, int], scale: float
) -> None:
    for thick, tone in ((3, (0, 0, 0)), (1, colour)):
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, tone, thick, cv2.LINE_AA)
