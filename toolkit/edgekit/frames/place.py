"""Where a frame stands in a model's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a frame stands in the tensor: x_tensor = x_frame * scale_x + left, likewise y."""

    scale_x: float
    scale_y: float
    left: float
    top: float
    width: int
    height: int

    def to_frame(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, 4) x1 y1 x2 y2 boxes in frame pixels, cut at the frame's edges."""
        moved = boxes - np.array([self.left, self.top] * 2, np.float32)
        moved /= np.array([self.scale_x, self.scale_y] * 2, np.float32)
        edge = np.array([self.width, self.height] * 2, np.float32)
        inside: NDArray[np.float32] = np.clip(moved, 0, edge).astype(np.float32)
        return inside
