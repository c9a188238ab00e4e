"""Which TensorRT a Jetson has, and combinations that do not exist."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.core.errors import RecipeError
from edgekit.devices.jetpacks import JETPACKS, own_release, target_for
from edgekit.devices.profiles import profile_of

pytestmark = pytest.mark.light


@pytest.mark.parametrize(
    ("device", "words", "tensorrt", "dialect"),
    [
        ("jetson-xavier-nx", {"jetpack": "5.1"}, "8.5.2", "trt8"),
        ("jetson-orin", {"jetpack": "6.0"}, "8.6.2", "trt8"),
        ("jetson-orin", {"jetpack": "6.2"}, "10.3.0", "trt10-strong"),
        ("jetson-orin", {"jetpack": "6.2", "weak": True}, "10.3.0", "trt10-weak"),
        ("jetson-orin", {"jetpack": "7.2"}, "10.16.2", "trt10-strong"),
        ("jetson-agx-thor", {"jetpack": "7.1"}, "10.13", "trt10-strong"),
        ("jetson-orin", {"tensorrt": "11.4.1"}, "11.4.1", "trt11"),
        ("jetson-orin", {"jetpack": "7.2.2", "tensorrt": "11.4.1"}, "11.4.1", "trt11"),
        ("jetson-orin", {"jetpack": "6.2", "dla": 0}, "10.3.0", "dla-cal"),
        ("jetson-xavier-nx", {"dla": 1}, "8.5.2", "dla-cal"),
        ("jetson-orin", {"tensorrt": "11.4.1", "dla": 1}, "11.4.1", "trt11"),
        ("jetson-orin-nano", {}, "10.3.0", "trt10-strong"),
    ],
)
def test_the_release_says_version_and_dialect(
    device: str, words: dict[str, Any], tensorrt: str, dialect: str
):
    found = target_for(profile_of(device), **words)
    assert (found.tensorrt, found.dialect) == (tensorrt, dialect)
    assert found.assumed == (not words.get("jetpack") and not words.get("tensorrt"))


@pytest.mark.parametrize(
    ("device", "words", "why"),
    [
        ("jetson-orin-nano", {"jetpack": "7.1"}, "does not run on it, only on modules with Thor"),
        ("jetson-agx-thor", {"jetpack": "6.2"}, "only on modules with Orin"),
        ("jetson-xavier-nx", {"jetpack": "6.0"}, "only on modules with Orin"),
        ("jetson-orin-nano", {"dla": 0}, "has no DLA"),
        ("jetson-agx-thor", {"dla": 0}, "has no DLA"),
        ("jetson-orin", {"dla": 2}, "it has 0 to 1"),
        ("jetson-orin", {"jetpack": "7.2", "dla": 0}, "DLA support ended with TensorRT 10.7"),
        ("jetson-orin", {"tensorrt": "11.0", "dla": 0}, "from 11.4.1 on"),
        ("jetson-orin", {"jetpack": "6.2", "tensorrt": "11.4.1"}, "boards on JetPack 6 stay on 10.x"),
        ("jetson-orin", {"jetpack": "7.2", "tensorrt": "11.4.1"}, "needs JetPack 7.2.2"),
        ("jetson-orin-nx", {"tensorrt": "11.4.1"}, "on Jetson AGX Orin and Thor alone"),
        ("jetson-orin", {"jetpack": "6.3"}, "no release '6.3'"),
        ("jetson-orin", {"tensorrt": "9.1"}, "is not known"),
        ("jetson-orin", {"tensorrt": "new"}, "is no version"),
        ("jetson-orin", {"jetpack": "6.2", "tensorrt": "10.13"}, "comes with 10.3.0"),
        ("jetson-orin", {"tensorrt": "11.4.1", "weak": True}, "strongly typed networks only"),
        ("raspberry-pi-5", {"jetpack": "6.2"}, "has no TensorRT"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_reason(device: str, words: dict[str, Any], why: str):
    with pytest.raises(RecipeError, match=why) as caught:
        target_for(profile_of(device), **words)
    assert caught.value.hint


def test_a_boards_own_release_is_taken_where_it_is_known():
    assert own_release({"jetpack": "6.1"}) == ("6.1", "")
    assert own_release({"jetpack": "6.2", "engines": {"tensorrt": "10.3.0"}}) == ("6.2", "")
    assert own_release({"jetpack": "6.2", "engines": {"tensorrt": "10.7.0.23"}}) == ("", "10.7.0.23")
    assert own_release({"jetpack": "4.6", "engines": {"tensorrt": "8.2.1"}}) == ("", "8.2.1")
    assert own_release({}) == ("", "")
    assert all(p.name == n for n, p in JETPACKS.items())
