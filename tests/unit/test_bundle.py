"""The bundle format: what is written, read back, refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from edgekit.bundle.manifest import MANIFEST, Variant
from edgekit.bundle.read import open_bundle
from edgekit.bundle.write import finish_bundle, pack
from edgekit.core.errors import ContractError, RecipeError, VerificationError
from edgekit.core.records import Contract, TensorSpec
from edgekit.runtime.load import load

pytestmark = pytest.mark.light
CONTRACT = Contract(
    inputs=(TensorSpec(name="input", shape=(1, 3, 32, 32), dtype="float32"),),
    outputs=(TensorSpec(name="logits", shape=(1, 7), dtype="float32"),),
)


@pytest.fixture
def made(tmp_path: Path, classifier: Path) -> Path:
    """A bundle with one variant that runs, and one for another architecture before it."""
    folder = tmp_path / "made"
    variants = []
    for name, arch in (("onnxruntime-int8", "riscv64"), ("onnxruntime-fp32", "")):
        (folder / "variants" / name).mkdir(parents=True)
        (folder / "variants" / name / "model.onnx").write_bytes(classifier.read_bytes())
        variants.append(
            Variant(
                name=name, backend="onnxruntime", precision="fp32", main=f"variants/{name}/model.onnx",
                options={"threads": 1}, needs={"arch": [arch]} if arch else {},
            )
        )  # fmt: skip
    finish_bundle(folder, name="made", contract=CONTRACT, variants=variants, facts={"licence": "MIT"})
    return folder


def test_a_bundle_opens_with_what_was_written(made: Path):
    with open_bundle(made) as opened:
        assert opened.manifest.data["licence"] == "MIT"
        assert opened.signature == "none"
        assert list(opened.manifest.files)[0].startswith("variants/onnxruntime-int8/")


def test_the_runtime_takes_the_first_variant_that_suits_and_says_why(made: Path):
    with load(made) as model:
        assert model.variant.name == "onnxruntime-fp32"
        assert "riscv64" in model.why


def test_no_variant_for_this_machine_is_a_broken_contract(made: Path):
    data = json.loads((made / MANIFEST).read_text())
    data["variants"][1]["needs"] = {"arch": ["sparc"]}
    (made / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(ContractError, match="no variant suits"):
        load(made)


def test_a_variant_that_needs_instructions_this_cpu_lacks_is_passed_over(made: Path):
    data = json.loads((made / MANIFEST).read_text())
    data["variants"][0]["needs"] = {"isa": ["no_such_flag"]}
    (made / MANIFEST).write_text(json.dumps(data))
    with load(made) as model:
        assert model.variant.name == "onnxruntime-fp32"
        assert "no_such_flag" in model.why


def test_packing_gives_the_same_bytes_and_a_manifest_first(made: Path, tmp_path: Path):
    one, two = pack(made, tmp_path / "a.ekb"), pack(made, tmp_path / "b.ekb")
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        names = archive.namelist()
        assert names[0] == MANIFEST
        assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
        assert all(not i.flag_bits & 8 for i in archive.infolist()), "sizes must stand in the local headers"
    with open_bundle(one) as opened:
        folder = opened.folder
        assert (folder / names[1]).is_file()
    assert not folder.exists()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x"])
def test_a_path_out_of_the_bundle_is_refused(made: Path, path: str):
    data = json.loads((made / MANIFEST).read_text())
    data["files"][0]["path"] = path
    (made / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(VerificationError, match="outside the bundle"):
        open_bundle(made)


@pytest.mark.parametrize(
    "damage", ["{", '{"schema": "edgekit/bundle/v9"}', "[]", '{"schema": "edgekit/bundle/v1"}']
)
def test_a_manifest_that_is_none_is_refused(made: Path, damage: str):
    (made / MANIFEST).write_text(damage)
    with pytest.raises(VerificationError):
        open_bundle(made)


def test_a_link_in_a_bundle_is_refused(made: Path, classifier: Path):
    file = made / "variants" / "onnxruntime-fp32" / "model.onnx"
    file.unlink()
    file.symlink_to(classifier)
    with pytest.raises(VerificationError, match="missing"):
        open_bundle(made)


def test_a_member_larger_than_its_manifest_says_is_refused(made: Path, tmp_path: Path):
    packed = pack(made, tmp_path / "a.ekb")
    with zipfile.ZipFile(packed) as archive:
        kept = {n: archive.read(n) for n in archive.namelist()}
    bomb = next(n for n in kept if n != MANIFEST)
    kept[bomb] += b"0" * 100
    with zipfile.ZipFile(tmp_path / "b.ekb", "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
    with pytest.raises(VerificationError):
        open_bundle(tmp_path / "b.ekb")


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path):
    with pytest.raises(RecipeError, match=MANIFEST):
        open_bundle(tmp_path)
