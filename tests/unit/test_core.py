"""The step cache, atomic files, locks, plug-ins and lazy imports."""

from __future__ import annotations

import errno
import pickle  # noqa: TID251 - errors travel between processes
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.core import errors
from edgekit.core.cache import StepCache
from edgekit.core.digest import digest_value
from edgekit.core.errors import MissingError, RecipeError, ResourceError
from edgekit.core.files import folder_aside, resource_errors, write_bytes
from edgekit.core.lazy import need
from edgekit.core.lock import locked
from edgekit.core.places import shipped
from edgekit.core.plugins import pick

pytestmark = pytest.mark.light


def test_a_step_is_made_once_for_the_same_inputs(tmp_path: Path):
    cache, made = StepCache(root=tmp_path), []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "x").write_text("1")

    first = cache.step("s", {"a": 1}, make)
    assert cache.step("s", {"a": 1}, make) == first
    assert cache.step("s", {"a": 2}, make) != first
    assert len(made) == 2


def test_a_step_that_fails_leaves_nothing(tmp_path: Path):
    def make(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        StepCache(root=tmp_path).step("s", {}, make)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path):
    final = tmp_path / "out"
    with folder_aside(final) as aside:
        (aside / "a").write_text("old")
    with pytest.raises(RuntimeError), folder_aside(final) as aside:
        (aside / "a").write_text("new")
        raise RuntimeError
    assert (final / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "f"
    write_bytes(path, b"old")
    with pytest.raises(TypeError):
        write_bytes(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_full_or_forbidden_disk_is_a_planned_error(number: int, tmp_path: Path):
    with pytest.raises(ResourceError) as caught, resource_errors(tmp_path):
        raise OSError(number, "no")
    assert caught.value.exit_code == 8
    assert caught.value.hint


def test_a_lock_names_who_holds_it_and_goes_with_its_holder(tmp_path: Path):
    folder = tmp_path / "out"
    with locked(folder), pytest.raises(ResourceError, match="process "), locked(folder):
        pass
    with locked(folder):
        pass
    assert list(tmp_path.iterdir()) == []


def test_every_planned_error_has_its_own_exit_code_and_survives_a_pipe():
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.EdgekitError)]
    codes = [k.exit_code for k in kinds if k is not errors.LinkError]
    assert errors.LinkError.exit_code == errors.DeviceError.exit_code
    assert sorted(codes) == [1, 2, 3, 4, 5, 6, 7, 8]
    copy = pickle.loads(pickle.dumps(RecipeError("a", hint="b")))
    assert (copy.message, copy.hint, copy.exit_code) == ("a", "b", 2)


def test_an_unknown_plug_in_gets_a_suggestion():
    with pytest.raises(RecipeError) as caught:
        pick("backends", "onnxruntim", what="backend")
    assert caught.value.hint == "Did you mean 'onnxruntime'?"


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(MissingError) as caught:
        need("no_such_package_at_all", extra="host", why="test")
    assert "pip install 'edgekit[host]'" in caught.value.hint


def test_equal_values_have_equal_digests_and_others_not():
    assert digest_value({"a": (1, 2), "b": Path("x")}) == digest_value({"b": "x", "a": [1, 2]})
    assert digest_value({"a": 1}) != digest_value({"a": 1.5})


@pytest.mark.parametrize("name", ["recipes", "models", "devices.yaml"])
def test_shipped_files_are_found(name: str):
    assert shipped(name).exists()


@pytest.mark.parametrize("words", ["import edgekit", "import edgekit.runtime", "import edgekit.cli.frame"])
def test_starting_loads_nothing_heavy(words: str):
    heavy = [
        "torch",
        "ultralytics",
        "onnx",
        "onnxruntime",
        "openvino",
        "cv2",
        "pydantic",
        "yaml",
        "nncf",
        "pycocotools",
    ]
    code = f"{words}; import sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
