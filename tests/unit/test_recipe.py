"""Recipes: what is accepted, and every fault with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.core.errors import RecipeError
from edgekit.core.places import shipped
from edgekit.core.plugins import family
from edgekit.jobs.init import recipe_text
from edgekit.recipe.check import check_recipe, read_recipe
from edgekit.recipe.schema import recipe_schema

pytestmark = pytest.mark.light
GOOD = "schema: edgekit/recipe/v1\nmodel: {name: uav-yolov8n}\n"


def checked(text: str):
    return check_recipe(text, path=Path("r.yaml"), folder=Path())


def faults(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        checked(text)
    return caught.value.message.splitlines()


@pytest.mark.parametrize("path", sorted(shipped("recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_have_no_faults(path: Path):
    assert read_recipe(path).recipe.description


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("gtes: {}", "r.yaml:3: gtes: no such key. Did you mean 'gates'?"),
        (
            "export: {imgsz: 5}",
            "r.yaml:3: export.imgsz: should be 32 to 4096 pixels, or 0 for the model's own, found 5",
        ),
        ("export: {opset: 3}", "r.yaml:3: export.opset: should be 13 to 20, found 3"),
        (
            "preprocess: {scale: 1/0}",
            "r.yaml:3: preprocess.scale: should be a number or a fraction such as 1/255, found '1/0'",
        ),
        (
            "preprocess: {std: [1, 1, 0]}",
            "r.yaml:3: preprocess.std: should be above 0, found [1.0, 1.0, 0.0]",
        ),
        (
            "data: {path: d.yaml, calibration: val}",
            "r.yaml:3: data.calibration: is the validation split; calibrate on training images",
        ),
        ("gates: {speedup: fast}", "r.yaml:3: gates.speedup: should be a number from 0"),
        ("passes: [simplify, simplify]", "r.yaml:3: passes: simplify stands there twice"),
        (
            "passes: [quantize-weights, simplify]",
            "r.yaml:3: passes: quantize-weights goes last. Put it behind simplify",
        ),
        ("passes: [quantize-weights, to-fp16]", "r.yaml:3: passes: to-fp16 stores weights its own way"),
        ("passes: [{a: 1, b: 2}]", "r.yaml:3: passes[0]: is not one pass. Write `- name: {setting: value}`"),
        ("gates: {accuracy_drop: 1}", "r.yaml:3: gates.accuracy_drop: should be a number from 0 to 0.5"),
        (
            "passes: [{quantize-int8: {max_drop: 1}}]",
            "r.yaml:3: passes[0].quantize-int8: value error, max_drop should be a share",
        ),
        (
            "data: {bands: [8, 4]}",
            "r.yaml:3: data.bands: should be sizes above 0 that rise, found [8.0, 4.0]",
        ),
        ("bench: {threads: [0]}", "r.yaml:3: bench.threads[0]: should be 1 to 256, found 0"),
        ("answers: {iou: 2}", "r.yaml:3: answers.iou: should be 0 to 1, found 2"),
        (
            "devices: {jetson-orin: {precision: int7}}",
            "r.yaml:3: devices.jetson-orin.precision: no 'int7'. Did you mean 'int8'?",
        ),
    ],
)
def test_a_fault_is_told_with_file_line_and_key(line: str, fault: str):
    found = faults(f"{GOOD}{line}\n")
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_a_recipe_needs_exactly_one_model():
    assert (
        "needs exactly one of name, path, function, pipeline, found none"
        in faults("schema: edgekit/recipe/v1\nmodel: {}\n")[0]
    )


def test_another_schema_is_refused():
    assert any("schema" in f for f in faults("schema: edgekit/recipe/v2\nmodel: {name: yolo11n}\n"))


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "a: 1\na: 2\n", "\tx: 1\n"])
def test_what_is_no_yaml_mapping_is_refused_with_a_line(text: str):
    assert faults(text)[0].startswith("r.yaml:")


def test_a_devices_own_gates_stand_over_the_common_ones():
    recipe = checked(
        GOOD + "gates: {speedup: 1.5, size_mb: 9}\ndevices: {jetson-orin: {precision: int8, size_mb: 4}}\n"
    )
    assert recipe.gates("jetson-agx-orin") == {"speedup": 1.5, "size_mb": 4.0}
    assert recipe.gates("x86-cpu") == {"speedup": 1.5, "size_mb": 9.0}


def test_a_fraction_is_a_scale():
    assert checked(GOOD + "preprocess: {scale: 1/128, color: bgr}\n").frames == {
        "scale": 1 / 128,
        "color": "bgr",
    }


def test_yaml_tags_do_not_run_code():
    assert faults("schema: !!python/object/apply:os.system [echo]\n")


def test_the_schema_knows_passes_gates_and_devices():
    schema = json.loads(json.dumps(recipe_schema()))
    assert "accuracy_drop" in schema["properties"]["gates"]["properties"]
    assert len(schema["properties"]["passes"]["items"]["oneOf"]) == len(family("passes"))
    assert schema["additionalProperties"] is False


def test_init_writes_a_recipe_that_checks_for_every_kind_of_model(
    detector: Path, squares: Path, tmp_path: Path
):
    (tmp_path / "best.pt").write_bytes(b"")
    for words in (
        {
            "model": str(detector),
            "data": str(squares),
            "latency_ms": 15.0,
            "device": "jetson-orin",
            "max_drop": 0.02,
        },
        {"model": str(tmp_path / "best.pt"), "data": "uav-mini", "trust": True},
        {"model": "yolo11n"},
    ):
        text = recipe_text(**words, folder=tmp_path)
        done = check_recipe(text, path=tmp_path / "x.yaml", folder=tmp_path)
        assert text.count("#") > 3
        if "latency_ms" in words:
            assert done.gates("jetson-agx-orin") == {
                "accuracy_drop": 0.02,
                "precision_share": 0.9,
                "latency_p90_ms": 15.0,
            }
            assert done.beside(done.recipe.model.path).samefile(detector)


@pytest.mark.parametrize(
    "words", [{"latency_ms": 0.0}, {"max_drop": 2.0, "data": "uav-mini"}, {"max_drop": 0.1}]
)
def test_init_refuses_limits_that_mean_nothing(words: dict[str, object]):
    with pytest.raises(RecipeError):
        recipe_text("yolo11n", **words, folder=Path())  # type: ignore[arg-type]
