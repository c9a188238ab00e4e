"""The predictor: its errors on rows it never saw, and that it always answers or says what is missing."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

import edgekit.predict
from edgekit.core.errors import RecipeError
from edgekit.devices.power import peak_in
from edgekit.devices.profiles import profile_of
from edgekit.jobs.predict import predicted
from edgekit.predict.latency import Question, judge, predict
from edgekit.predict.rows import Size, held_out, place_of, rows, sizes

pytestmark = pytest.mark.light


def test_held_out_rows_are_a_quarter_by_hash():
    path = Path(edgekit.predict.__file__).parent / "published_latency.csv"
    with path.open(newline="") as file:
        keys = [
            "|".join(r[k] for k in ("model", "device", "backend", "precision", "imgsz"))
            for r in csv.DictReader(file)
        ]
    wanted = [hashlib.sha256(k.encode()).digest()[0] < 64 for k in keys]
    assert [held_out(r) for r in rows()] == wanted
    assert 0.2 < sum(wanted) / len(wanted) < 0.3


def test_errors_on_held_out_rows_are_within_the_promise():
    rich, poor = judge()
    assert (rich.rows, poor.rows) == (65, 38)
    assert rich.median_error <= 0.15
    assert rich.covered >= 0.8
    assert poor.covered >= 0.8


def test_every_published_row_is_answered_or_the_missing_fact_is_named():
    for row in {(r.model, r.device, r.backend, r.precision, r.imgsz) for r in rows()}:
        model, device, backend, precision, imgsz = row
        side = int(imgsz) if imgsz.isdigit() else 640
        if model in sizes():
            found = predicted(model, device=device, backend=backend, precision=precision, imgsz=side)
            assert 0 < found["low_ms"] < found["ms"] < found["high_ms"], row
        else:
            with pytest.raises(RecipeError, match="GFLOPs and activations are not known"):
                predicted(model, device=device, backend=backend, precision=precision, imgsz=side)


@pytest.mark.parametrize(
    ("key", "word"), [("precision", "int9"), ("software", "nonsense"), ("backend", "tensort")]
)
def test_words_that_nobody_published_are_refused(key: str, word: str):
    with pytest.raises(RecipeError, match=key):
        predicted("yolo11n", **{"device": "jetson-orin", "backend": "tensorrt", key: word})


@pytest.mark.parametrize(
    ("device", "backend", "wanted"),
    [
        ("intel-core-ultra-7-258v (npu)", "openvino-npu", ("intel-core-ultra-7-258v", "openvino", "npu")),
        ("jetson-agx-orin-64gb (2x DLA)", "tensorrt-dla", ("jetson-agx-orin-64gb", "tensorrt", "dla")),
        ("jetson-agx-thor", "pytorch", ("jetson-agx-thor", "pytorch", "gpu")),
        ("raspberry-pi-5", "pytorch", ("raspberry-pi-5", "pytorch", "cpu")),
        (
            "jetson-orin-nano-super-8gb",
            "onnxruntime-cuda",
            ("jetson-orin-nano-super-8gb", "onnxruntime", "gpu"),
        ),
        ("rk3588 (cpu, Rock 5)", "ncnn", ("rk3588", "ncnn", "cpu")),
    ],
)
def test_a_rows_words_name_device_engine_and_unit(device: str, backend: str, wanted: tuple[str, ...]):
    assert place_of(device, backend) == wanted


def test_more_work_takes_longer_and_a_stranger_gets_a_wider_band():
    def ask(device: str, gflops: float):
        return predict(
            Question(
                device=device,
                backend="tensorrt",
                precision="fp16",
                size=Size(gflops=gflops, activations_m=40 * gflops / 6.5),
            )
        )

    near, far = ask("jetson-agx-orin-64gb", 20), ask("no-such-board", 20)
    assert ask("jetson-agx-orin-64gb", 100).ms > near.ms > ask("jetson-agx-orin-64gb", 5).ms
    assert far.high_ms / far.low_ms > near.high_ms / near.low_ms


def test_an_onnx_file_is_counted(detector: Path):
    found = predicted(str(detector), device="raspberry-pi-5", backend="onnxruntime")
    assert found["imgsz"] == 64
    with pytest.raises(RecipeError, match="fixed at 64 px"):
        predicted(str(detector), device="raspberry-pi-5", backend="onnxruntime", imgsz=320)
    # 64 x 64 x 9 x (3 x 8 + 8 x 8) + 8 x 8 x 64 x 8 x 2 multiply-adds, two operations each.
    assert found["gflops"] == pytest.approx(2 * (64 * 64 * 9 * 88 + 65536) / 1e9, abs=1e-3)
    assert found["kind"] == "predicted"


@pytest.mark.parametrize(
    ("device", "modes"),
    [("jetson-orin", ("MAXN", "50W", "30W", "15W")), ("jetson-orin-nano-super", ("25W", "15W"))],
)
def test_a_lower_power_mode_is_predicted_slower_with_a_band(device: str, modes: tuple[str, ...]):
    found = [
        predicted("yolo11s", device=device, backend="tensorrt", precision="fp16", power=m) for m in modes
    ]
    assert [f["ms"] for f in found] == sorted(f["ms"] for f in found)
    assert found[0]["ms"] * 1.1 < found[-1]["ms"]
    assert all(f["low_ms"] < f["ms"] < f["high_ms"] for f in found)


def test_a_power_mode_that_the_board_has_not_is_refused_with_those_it_has():
    with pytest.raises(RecipeError, match="jetson-agx-orin has no '40W'") as caught:
        predicted("yolo11s", device="jetson-orin", backend="tensorrt", precision="fp16", power="40W")
    assert "30W" in caught.value.hint


def test_the_peak_of_a_mode_is_its_sms_and_clock():
    assert peak_in(profile_of("jetson-orin"), "30W") == pytest.approx(8 * 0.612 * 2048)
    assert peak_in(profile_of("jetson-orin"), "MAXN") == pytest.approx(16 * 1.3 * 2048)
    assert peak_in(profile_of("jetson-orin"), "") == 0.0
