"""Pre-processing: the numpy reference against cv2, and boxes back in the frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import RecipeError
from edgekit.core.records import Frames
from edgekit.frames.images import read_image
from edgekit.frames.prepare import prepare
from edgekit.frames.resize import resize

pytestmark = pytest.mark.light
sides = st.integers(2, 90)


@settings(max_examples=60, deadline=None)
@given(h=sides, w=sides, new_h=sides, new_w=sides, seed=st.integers(0, 9))
def test_numpys_resize_is_within_one_grey_level_of_cv2(h: int, w: int, new_h: int, new_w: int, seed: int):
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)
    ours = resize(image, new_w, new_h, with_cv2=False).astype(int)
    theirs = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(ours - theirs).max() <= 1


@settings(max_examples=40, deadline=None)
@given(h=st.integers(8, 300), w=st.integers(8, 300), kind=st.sampled_from(["letterbox", "stretch", "crop"]))
def test_a_box_in_the_tensor_goes_back_to_where_it_was_in_the_frame(h: int, w: int, kind: str):
    frame = np.zeros((h, w, 3), np.uint8)
    _, place = prepare(frame, Frames(resize=kind), (64, 64))
    box = np.array([[w * 0.25, h * 0.25, w * 0.5, h * 0.75]], np.float32)
    moved = box * np.array([place.scale_x, place.scale_y] * 2) + np.array([place.left, place.top] * 2)
    np.testing.assert_allclose(place.to_frame(moved.astype(np.float32)), box, atol=1e-2)


def test_a_wide_frame_is_letterboxed_with_grey_bars_and_rgb_order():
    frame = np.zeros((50, 100, 3), np.uint8)
    frame[..., 0] = 255  # blue
    tensor, place = prepare(frame, Frames(), (64, 64))
    assert (place.left, place.top, place.scale_x) == (0, 16, 0.64)
    np.testing.assert_allclose(tensor[0, :, 0, 0], 114 / 255, rtol=1e-6)
    np.testing.assert_allclose(tensor[0, :, 32, 32], [0, 0, 1], rtol=1e-6)


def test_mean_and_deviation_are_applied_after_the_scale():
    frame = np.full((4, 4, 3), 51, np.uint8)
    spec = Frames(resize="stretch", mean=(0.1, 0.2, 0.0), std=(0.5, 1.0, 2.0))
    tensor, _ = prepare(frame, spec, (4, 4))
    np.testing.assert_allclose(tensor[0, :, 0, 0], [0.2, 0.0, 0.1], atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), "x.jpg", np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_bgr_image_is_refused(bad: object):
    from edgekit.frames.prepare import check_frame

    with pytest.raises(RecipeError, match="is not a BGR image"):
        check_frame(bad)


def test_a_cut_jpeg_is_refused(tmp_path: Path):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (80, 80, 3)).astype(np.uint8))
    assert read_image(path).shape == (80, 80, 3)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RecipeError, match="truncated"):
        read_image(path)
