"""Turn a BGR frame into a model's input tensor, and remember where the frame went."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import RecipeError
from edgekit.core.lazy import have, need
from edgekit.core.records import Frames
from edgekit.frames.coded import coded
from edgekit.frames.place import Placement
from edgekit.frames.resize import Image, resize


def check_frame(frame: object) -> Image:
    """Return `frame` if it is a BGR image.

    Raises:
        RecipeError: It is not a uint8 array (H, W, 3) with at least one pixel.
    """
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape[2:] == (3,) and frame.size:
        return frame
    found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
    raise RecipeError(
        f"frame: {found} is not a BGR image",
        hint="Give a uint8 array (height, width, 3), as cv2.imread returns.",
    )


def prepare(
    frame: NDArray[Any],
    spec: Frames,
    size: tuple[int, int],
    *,
    out: NDArray[np.float32] | None = None,
    with_cv2: bool | None = None,
) -> tuple[NDArray[Any], Placement]:
    """Return the input tensor (1, 3, H, W) float32 and where the frame stands in it.

    With a coding the tensor is uint8, and its size is the coding's.

    Args:
        frame: (H, W, 3) uint8, BGR; with a coding a sensor's signal, or its codes.
        spec: The declared pre-processing.
        size: Height and width of the tensor in pixels.
        out: A tensor to fill instead of a new one.
        with_cv2: True and False choose; None takes cv2 where it is installed.
    """
    if spec.coding:
        return coded(frame, spec.coding)
    cv2_used = have("cv2") if with_cv2 is None else with_cv2
    image, placement = _fit(frame, spec, size, with_cv2=cv2_used)
    tensor = np.empty((1, 3, *size), np.float32) if out is None else out
    _fill(tensor, image, spec, with_cv2=cv2_used)
    return tensor, placement


def _fit(frame: Image, spec: Frames, size: tuple[int, int], *, with_cv2: bool) -> tuple[Image, Placement]:
    height, width = frame.shape[:2]
    if spec.resize == "stretch":
        image = resize(frame, size[1], size[0], with_cv2=with_cv2)
        place = Placement(
            scale_x=size[1] / width, scale_y=size[0] / height, left=0, top=0, width=width, height=height
        )
        return image, place
    if spec.resize == "crop":
        return _crop(frame, size, with_cv2=with_cv2)
    return _letterbox(frame, spec.pad, size, with_cv2=with_cv2)


def _letterbox(frame: Image, pad: int, size: tuple[int, int], *, with_cv2: bool) -> tuple[Image, Placement]:
    """Fit the frame into the middle of a grey canvas, aspect kept."""
    height, width = frame.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner_h, inner_w = max(round(height * scale), 1), max(round(width * scale), 1)
    # The odd pixel goes to the bottom and right, as detectors' trainers place it.
    top, left = (size[0] - inner_h) // 2, (size[1] - inner_w) // 2
    image = resize(frame, inner_w, inner_h, with_cv2=with_cv2)
    if (inner_h, inner_w) != size:
        canvas = np.full((*size, 3), pad, np.uint8)
        canvas[top : top + inner_h, left : left + inner_w] = image
        image = canvas
    place = Placement(scale_x=scale, scale_y=scale, left=left, top=top, width=width, height=height)
    return image, place


def _crop(frame: Image, size: tuple[int, int], *, with_cv2: bool) -> tuple[Image, Placement]:
    """Scale until the frame covers the tensor, then cut out the middle."""
    height, width = frame.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    outer_h, outer_w = max(round(height * scale), size[0]), max(round(width * scale), size[1])
    image = resize(frame, outer_w, outer_h, with_cv2=with_cv2)
    top, left = (outer_h - size[0]) // 2, (outer_w - size[1]) // 2
    image = image[top : top + size[0], left : left + size[1]]
    place = Placement(scale_x=scale, scale_y=scale, left=-left, top=-top, width=width, height=height)
    return image, place


def _fill(tensor: NDArray[np.float32], image: Image, spec: Frames, *, with_cv2: bool) -> None:
    """Write the image as planes: channel order, scale, mean, deviation."""
    order = (2, 1, 0) if spec.color == "rgb" else (0, 1, 2)
    planes = tuple(image[..., k] for k in range(3))
    if with_cv2:
        # Split planes first: numpy's strided reads of interleaved pixels take four times as long.
        planes = need("cv2", extra="vision").split(image)
    for k, source in enumerate(order):
        np.multiply(planes[source], np.float32(spec.scale), out=tensor[0, k], casting="unsafe")
        if spec.mean[k] or spec.std[k] != 1.0:
            tensor[0, k] -= np.float32(spec.mean[k])
            tensor[0, k] /= np.float32(spec.std[k])
