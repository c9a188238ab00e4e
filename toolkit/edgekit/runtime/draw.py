"""Draw detections or rankings onto a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.answers.detect import Detections
from edgekit.core.lazy import need

# Distinct at small sizes and for red-green blindness; BGR.
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
    for box, score, label in zip(answer.boxes, answer.scores, answer.classes, strict=True):
        colour = _COLOURS[int(label) % len(_COLOURS)]
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(image, (x1 - 1, y1 - 1), (x2 + 1, y2 + 1), colour, 1)
        name = answer.names[label] if label < len(answer.names) else str(label)
        text, place = f"{name} {score:.2f}", (x1, max(y1 - 3, 9))
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.34, (0, 0, 0), 2, cv2.LINE_AA)
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.34, colour, 1, cv2.LINE_AA)
    return image
