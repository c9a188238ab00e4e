"""What the cache of engines keeps, tries and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.backends import engines
from edgekit.core.errors import ContractError, RecipeError
from tests.unit.test_engines import BOARD, Fake, ensure, files

pytestmark = pytest.mark.light


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    return Fake(monkeypatch, tmp_path, "v10_3")


def test_an_engine_that_nobody_tried_is_tried_when_somebody_can(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    assert not ensure(folder).meta["tested"]
    tried: list[str] = []
    assert ensure(folder, test=lambda _, precision: tried.append(precision) or "").meta["tested"] in {
        True,
        False,
    }
    assert ensure(folder, test=lambda _, precision: tried.append(precision) or "").meta["tested"]
    assert tried == ["int8"], "once is enough"
    engines.clear()
    ensure(folder)
    found = ensure(folder, test=lambda _, precision: "self-test: no boxes" if precision == "int8" else "")
    assert found.precision == "fp16"
    assert [e.precision for e in engines.listed()] == ["fp16"], "the one that failed is gone"


def test_the_twin_and_the_fp16_variants_file_are_one_engine(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    first, twin = engines.builds_in(folder)
    assert (first["model"], twin["model"]) == ("model.onnx", "fp16.onnx")
    other = tmp_path / "fp16"
    other.mkdir()
    (other / "renamed.onnx").write_bytes((folder / "fp16.onnx").read_bytes())
    again = {**twin, "model": "renamed.onnx"}
    assert engines.key_of(other, again, BOARD) == engines.key_of(folder, twin, BOARD)
    assert engines.key_of(folder, first, BOARD) != engines.key_of(folder, twin, BOARD)


def test_files_for_another_major_version_are_refused_before_a_build(
    detector: Path, tmp_path: Path, fake: Fake
):
    folder = files(detector, tmp_path / "v")
    with pytest.raises(RecipeError, match=r"build\.json: cannot be read"):
        engines.refuse_other_version(tmp_path, "10.3.0")
    with pytest.raises(RecipeError, match=r"was compiled for TensorRT 10\.3\.0, this board has 8\.6\.2"):
        engines.refuse_other_version(folder, "8.6.2")
    assert "this board has 10.7.0" in engines.refuse_other_version(folder, "10.7.0")
    assert engines.refuse_other_version(folder, "10.3.0.30") == ""


def test_a_warning_of_little_memory_is_no_reason_to_try_again(detector: Path, tmp_path: Path, fake: Fake):
    """Healthy builds warn that they skip kernels that want too much; what fails here is another thing."""
    fake.does("refuse")
    with pytest.raises(ContractError) as caught:
        ensure(files(detector, tmp_path / "v"))
    assert caught.value.message.count("int8 with") == 1
