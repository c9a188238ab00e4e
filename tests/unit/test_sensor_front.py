"""Packed codes into a network: the graph gives what the codec decodes, in every engine and dialect."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.backends.ort_session import layers_of
from edgekit.bundle.manifest import manifest_data, parse_manifest
from edgekit.codecs.curves import thresholds_of, value_scale
from edgekit.codecs.packing import packed_width
from edgekit.codecs.sensor import Sensor
from edgekit.codecs.sensor_table import PLUGIN, Table
from edgekit.core.errors import RecipeError, VerificationError
from edgekit.core.plugins import family
from edgekit.core.records import Coding, Contract, Frames, Graph, Network
from edgekit.frames.prepare import prepare
from edgekit.frames.raw import planes_of
from edgekit.graph.onnx_file import inputs_of, outputs_of, save_onnx
from edgekit.graph.sensor_front import FRONT, network_shape, with_front
from edgekit.graph.walk import name_nodes
from edgekit.jobs.parcel import Parcel
from edgekit.jobs.parcel import _with_frames as with_frames
from edgekit.lowering.protocol import Options
from edgekit.lowering.trt_dialects import write
from edgekit.lowering.trt_lint import lint
from edgekit.lowering.trt_rtx import asked
from edgekit.measure.encoder import c_type, compiled, encoder_times
from edgekit.passes.gamma_quant import Settings, fixed_table
from edgekit.passes.protocol import Context
from tests.unit.test_trt_dialects import TARGETS, target
from tests.unit.test_trt_lint import rtx

pytestmark = pytest.mark.light

BAYER = Sensor(bits=12, black=64, mosaic="GBRG")
WEAR = Sensor(bits=12, signed=True, axes=("x", "y", "z"))
MONO = Sensor(bits=10)


def bent(sensor: Sensor, bits: int, width: int) -> Table:
    """A table of another curve for each channel."""
    rows = []
    for c in range(sensor.channels):
        u = np.linspace(-1, 1, sensor.values) if sensor.signed else np.linspace(0, 1, sensor.values)
        bow = np.sign(u) * np.abs(u) ** (0.3 + 0.2 * c)
        share = (bow + 1) / 2 if sensor.signed else bow
        codes = np.floor(share * ((1 << bits) - 1) + 1e-6).astype(int)
        rows.append(thresholds_of(codes, sensor, bits))
    scale, offset = value_scale(sensor, bits, "gamma")
    return Table(
        sensor=sensor, bits=bits, height=1 if sensor.axes else 6, width=width, thresholds=tuple(rows), scale=scale,
        offset=offset, curve="gamma",
    )  # fmt: skip


TABLES = {
    **{f"bayer-{b}": bent(BAYER, b, 12) for b in (1, 2, 3, 4, 5, 6, 7, 8)},
    **{f"wear-{b}": bent(WEAR, b, 17) for b in (2, 3, 4)},
    "mono-4-odd": bent(MONO, 4, 9), "mono-3-odd": bent(MONO, 3, 13),
    "bayer-none": fixed_table(Settings(curve="none"), BAYER, height=6, width=11),
    "wear-none": fixed_table(Settings(curve="none"), WEAR, height=1, width=17),
    "mono-none": fixed_table(Settings(curve="none"), MONO, height=4, width=7),
}  # fmt: skip


def signal_of(table: Table, seed: int = 0) -> np.ndarray:
    """A signal as its sensor gives it, ends of its range among the values."""
    sensor = table.sensor
    cell = 2 if sensor.mosaic else 1
    shape = (table.width, len(sensor.axes)) if sensor.axes else (table.height * cell, table.width * cell)
    found = np.random.default_rng(seed).integers(sensor.lowest, sensor.lowest + sensor.values, shape)
    found.flat[:2] = sensor.lowest, sensor.lowest + sensor.values - 1
    return found.astype(np.int16 if sensor.signed else np.uint16)


def frames_of(table: Table) -> Frames:
    return Frames(coding=Coding(codec="sensor-table", settings=table.settings()))


def network_of(shape: tuple[int, ...], *, conv: bool) -> Any:
    """A network that gives its input back, or a convolution of it."""
    value = helper.make_tensor_value_info
    if conv:
        weight = np.random.default_rng(1).normal(size=(8, shape[1], 3, 3)).astype(np.float32)
        node = helper.make_node("Conv", ["x", "w"], ["y"], name="first", pads=[1] * 4)
        stored, out = [numpy_helper.from_array(weight, "w")], (1, 8, *shape[2:])
    else:
        node, stored, out = helper.make_node("Relu", ["x"], ["y"], name="keep"), [], shape
        node = helper.make_node("Identity", ["x"], ["y"], name="keep")
    graph = helper.make_graph(
        [node],
        "g",
        [value("x", TensorProto.FLOAT, list(shape))],
        [value("y", TensorProto.FLOAT, list(out))],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ran(model: Any, given: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)[0]


@pytest.mark.parametrize("name", TABLES)
def test_the_graph_gives_the_values_that_the_codec_decodes(name: str):
    """G7 and G8: every number of bits, odd widths, mosaics, one plane, time series."""
    table = TABLES[name]
    model = with_front(network_of(network_shape(table), conv=False), table)
    onnx.checker.check_model(model, full_check=True)
    (given,) = inputs_of(model)
    rows = -(-table.width * table.bits // 8)
    assert (given.name, given.dtype, given.shape) == (
        "codes",
        "uint8",
        (1, table.sensor.channels, table.height, rows),
    )
    codes, _ = prepare(signal_of(table), frames_of(table), (0, 0))
    assert codes.nbytes == PLUGIN.sizes(table.settings())[0] == rows * table.height * table.sensor.channels
    np.testing.assert_allclose(
        ran(model, {"codes": codes}), PLUGIN.decode(codes, table.settings()), atol=1e-6
    )
    bit_work = {"BitShift", "BitwiseAnd", "BitwiseOr", "Pow", "Log", "Mod"}
    assert not bit_work & {n.op_type for n in model.graph.node}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_decoded_is_the_value_of_each_channels_own_code(name: str):
    table = TABLES[name]
    signal = signal_of(table, seed=3)
    codes, _ = prepare(signal, frames_of(table), (0, 0))
    planes, rows = planes_of(signal, table.sensor).astype(int), table.codes().astype(float)
    values = (
        np.stack([rows[c][planes[c] - table.sensor.lowest] for c in range(len(rows))]) * table.scale
        + table.offset
    )
    if table.sensor.mosaic:
        values = np.stack([values[0], values[1:3].mean(0), values[3]])
    wanted = values.reshape(network_shape(table)[1:])
    np.testing.assert_allclose(PLUGIN.decode(codes, table.settings())[0], wanted, atol=1e-6)


def test_the_greens_of_a_mosaic_are_averaged_in_the_first_convolution():
    table = TABLES["bayer-4"]
    plain = network_of(network_shape(table), conv=True)
    model = with_front(plain, table)
    assert [n.op_type for n in model.graph.node].count("Conv") == 1
    codes, _ = prepare(signal_of(table), frames_of(table), (0, 0))
    expected = ran(plain, {"x": PLUGIN.decode(codes, table.settings())})
    np.testing.assert_allclose(ran(model, {"codes": codes}), expected, atol=1e-5)


def test_a_network_of_another_size_is_refused():
    table = TABLES["bayer-4"]
    with pytest.raises(RecipeError, match=r"\[1, 3, 6, 12\]"):
        with_front(network_of((1, 3, 8, 8), conv=True), table)


def network_with(table: Table, folder: Path) -> Network:
    model = with_front(network_of(network_shape(table), conv=True), table)
    name_nodes(model.graph)
    path = folder / "main.onnx"
    save_onnx(model, path)
    contract = Contract(inputs=inputs_of(model), outputs=outputs_of(model), frames=frames_of(table))
    return Network(graphs={"main": Graph(path=path, sha256="")}, contract=contract)


IMAGES = ("bayer-4", "bayer-3", "mono-4-odd", "bayer-none")


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_backend_here_takes_packed_codes(name: str, backend: str, tmp_path: Path):
    table = TABLES[name]
    network = network_with(table, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    artifact = family("lowering")[backend].lower(network, None, Options(precision="fp32", threads=1), out)
    codes, _ = prepare(signal_of(table), frames_of(table), (0, 0))
    plain = network_of(network_shape(table), conv=True)
    expected = ran(plain, {"x": PLUGIN.decode(codes, table.settings())})
    with family("backends")[backend].open(artifact) as session:
        (found,) = session.infer({"codes": codes}).values()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("dialect", TARGETS)
@pytest.mark.parametrize("name", ["bayer-4", "bayer-3"])
def test_every_tensorrt_dialect_has_the_front_without_findings(
    name: str, dialect: str, precision: str, tmp_path: Path
):
    table, to = TABLES[name], target(dialect)
    model = onnx.load(network_with(table, tmp_path).main.path)
    written = write(onnx.shape_inference.infer_shapes(model), None, precision, to)
    assert not [f for f in lint(written.model, to) if f.severity == "error"]
    codes, _ = prepare(signal_of(table), frames_of(table), (0, 0))
    (given,) = inputs_of(written.model)
    # UINT8 inputs came with TensorRT 8.6.
    assert given.dtype == ("int32" if to.version < (8, 6) else "uint8")
    plain = network_of(network_shape(table), conv=True)
    expected = ran(plain, {"x": PLUGIN.decode(codes, table.settings())})
    found = ran(written.model, {"codes": codes.astype(given.dtype)})
    assert np.abs(found - expected).max() <= (1e-4 if precision == "fp32" else 0.02) * np.abs(expected).max()


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["bayer-4", "bayer-3", "bayer-none"])
def test_tensorrt_for_rtx_accepts_the_front(name: str, precision: str, tmp_path: Path):
    for dialect in ("trt8-8.6", "trt10-strong", "trt11"):
        model = onnx.load(network_with(TABLES[name], tmp_path).main.path)
        written = write(onnx.shape_inference.infer_shapes(model), None, precision, target(dialect))
        path = tmp_path / f"{dialect}.onnx"
        save_onnx(written.model, path)
        said = asked(path)
        assert said.state == "accepted", (dialect, said)


CC = shutil.which("cc") or shutil.which("gcc")
if os.environ.get("EDGEKIT_LAB_REQUIRED") and CC is None:
    raise RuntimeError("a C compiler is required here and not installed")


@pytest.mark.skipif(CC is None, reason="no C compiler is installed")
@pytest.mark.parametrize("flags", [(), ("-DEDGEKIT_THRESHOLDS",)], ids=["table", "thresholds"])
@pytest.mark.parametrize("name", TABLES)
def test_the_c_encoder_equals_the_table_for_every_value_and_channel(
    name: str, flags: tuple[str, ...], tmp_path: Path
):
    table = dataclasses.replace(TABLES[name], height=1, width=TABLES[name].sensor.values)
    said = table.settings()
    every = np.arange(table.sensor.values) + table.sensor.lowest
    kind = c_type(signed=table.sensor.signed, bits=table.sensor.bits)
    planes = np.ascontiguousarray(np.broadcast_to(every.astype(kind), (table.sensor.channels, 1, len(every))))
    encode = compiled(PLUGIN.files(said)["device/encoder.h"], tmp_path, CC, *flags, "-Wextra", "-pedantic")
    out = np.zeros(PLUGIN.shape(said), np.uint8)
    encode(planes, out)
    assert np.array_equal(out, PLUGIN.encode(planes, said))
    assert out.shape[-1] == packed_width(len(every), table.bits)


@pytest.mark.skipif(CC is None, reason="no C compiler is installed")
def test_the_header_is_taken_by_a_c_plus_plus_compiler_too(tmp_path: Path):
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed")
    (tmp_path / "encoder.h").write_bytes(PLUGIN.files(TABLES["bayer-4"].settings())["device/encoder.h"])
    (tmp_path / "a.cpp").write_text(
        '#include "encoder.h"\nint main() { return (int)edgekit_row_bytes(3) - 2 + 0 * sizeof(&edgekit_encode_row); }\n'
    )
    subprocess.run([compiler, "-Wall", "a.cpp", "-o", "a"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "a"]).returncode == 0


def test_encoder_times_are_medians_of_real_runs():
    table = TABLES["bayer-4"]
    found = encoder_times(frames_of(table).coding, [signal_of(table, k) for k in range(3)])
    assert found["runs"] >= 5
    assert found["numpy_ms"] > 0
    assert (found["c_ms"] is None) == (CC is None)


def test_frames_of_other_sizes_are_placed_by_taking_the_nearest_values():
    table = TABLES["bayer-4"]
    sensor = table.sensor
    # Twice the table's planes, each value twice as often: the nearest ones are the same.
    small = signal_of(table)
    planes = planes_of(small, sensor)
    big = np.zeros((table.height * 4, table.width * 4), np.uint16)
    where = {"GBRG": ((1, 0), (0, 0), (1, 1), (0, 1))}[sensor.mosaic]
    for plane, (r, c) in zip(planes, where, strict=True):
        big[r::2, c::2] = plane.repeat(2, 0).repeat(2, 1)
    one, place = prepare(big, frames_of(table), (0, 0))
    two, _ = prepare(small, frames_of(table), (0, 0))
    assert np.array_equal(one, two)
    box = place.to_frame(np.array([[0, 0, table.width, table.height]], np.float32))
    assert box.tolist() == [[0, 0, table.width * 4, table.height * 4]]


def test_packed_codes_pass_as_they_are():
    table = TABLES["bayer-3"]
    codes, _ = prepare(signal_of(table), frames_of(table), (0, 0))
    again, place = prepare(codes, frames_of(table), (0, 0))
    assert again is codes
    assert (place.width, place.height) == (table.width * 2, table.height * 2)


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (np.zeros((12, 23), np.uint16), "2 x 2"), (np.zeros((12, 24, 3), np.uint8), "raw"),
        (np.full((12, 24), 5000, np.uint16), "12-bit"), (np.zeros((12, 24), np.float32), "integers"), ("x", "str"),
    ],
)  # fmt: skip
def test_what_is_no_frame_of_the_sensor_is_refused(frame: Any, word: str):
    with pytest.raises(RecipeError, match=word):
        prepare(frame, frames_of(TABLES["bayer-4"]), (0, 0))


def test_front_nodes_are_known_by_name(tmp_path: Path):
    model = onnx.load(network_with(TABLES["bayer-3"], tmp_path).main.path)
    names = [n.name for n in model.graph.node]
    assert names[-1] == "first"
    assert all(n.startswith(FRONT) for n in names[:-1])


@pytest.mark.parametrize("fault", ["thresholds", "codec", "sensor"])
def test_a_manifest_with_a_damaged_codec_is_refused(fault: str):
    table = TABLES["bayer-4"]
    contract = Contract(inputs=(), outputs=(), frames=frames_of(table))
    data = manifest_data(name="x", contract=contract, variants=(), files={}, order=(), facts={})
    parse_manifest(json.dumps(data).encode(), where="x")
    coding = data["contract"]["frames"]["coding"]
    if fault == "thresholds":
        coding["settings"]["thresholds"][2][5] += 1
    elif fault == "codec":
        coding["codec"] = "sensor-tabel"
    else:
        coding["settings"]["sensor"]["mosaic"] = "RGBW"
    with pytest.raises(VerificationError):
        parse_manifest(json.dumps(data).encode(), where="x")


@pytest.mark.skipif(CC is None, reason="no C compiler is installed")
@pytest.mark.parametrize("flags", [(), ("-DEDGEKIT_THRESHOLDS",)], ids=["table", "thresholds"])
def test_the_c_encoder_takes_values_beyond_the_sensor_as_its_last_one(flags: tuple[str, ...], tmp_path: Path):
    # A curve whose upper codes no value has: its last thresholds lie beyond the sensor.
    codes = np.arange(4096) * 8 // 4096
    table = dataclasses.replace(
        TABLES["mono-4-odd"],
        sensor=Sensor(bits=12),
        height=1,
        width=4,
        thresholds=(thresholds_of(codes, Sensor(bits=12), 4),),
    )
    encode = compiled(PLUGIN.files(table.settings())["device/encoder.h"], tmp_path, CC, *flags)
    out = np.zeros((1, 1, 1, 2), np.uint8)
    encode(np.array([[[4095, 5000, 65535, 0]]], np.uint16), out)
    assert out.ravel().tolist() == [0x77, 0x07]


def test_learned_weights_are_refused_on_data_of_another_sensor(tmp_path: Path):
    table = TABLES["bayer-4"]
    coding = {**table.settings(), "mode": "gain", "per": "sensor"}
    network = plain_network(table, tmp_path)
    one = family("passes")["gamma-quant"]
    one.run(network, Settings(), Context(out=tmp_path, coding=coding, sensor=BAYER))
    for other, word in (
        (dataclasses.replace(BAYER, mosaic="RGGB"), "mosaic"),
        (dataclasses.replace(BAYER, black=9), "black"),
    ):
        with pytest.raises(RecipeError, match=word):
            one.run(network, Settings(), Context(out=tmp_path, coding=coding, sensor=other))
    with pytest.raises(RecipeError, match="mode gain instead of paper"):
        one.run(network, Settings(mode="paper"), Context(out=tmp_path, coding=coding, sensor=BAYER))
    with pytest.raises(RecipeError, match="per sensor instead of mosaic"):
        one.run(network, Settings(per="mosaic"), Context(out=tmp_path, coding=coding, sensor=BAYER))


def plain_network(table: Table, folder: Path) -> Network:
    model = network_of(network_shape(table), conv=True)
    save_onnx(model, folder / "plain.onnx")
    contract = Contract(inputs=inputs_of(model), outputs=outputs_of(model))
    return Network(graphs={"main": Graph(path=folder / "plain.onnx", sha256="")}, contract=contract)


def test_a_bundles_own_frames_go_to_a_board_as_arrays(tmp_path: Path):
    table = TABLES["bayer-4"]
    folder = tmp_path / "frames"
    folder.mkdir()
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(folder / "a.png"), signal_of(table))
    one = Parcel(subject={}, sources={}, bundle="bundle", spec=frames_of(table))
    found = with_frames(one, tmp_path, str(folder), tmp_path, arrays=False)
    (sent,) = (found.sources[f] for f in found.frames)
    assert np.array_equal(np.load(sent), signal_of(table))


def test_a_node_that_onnxruntime_renamed_stands_for_the_layer_it_was():
    event = {
        "cat": "Node",
        "name": "/model.0/conv/Conv_token_24_kernel_time",
        "dur": 5,
        "args": {
            "op_name": "QLinearConv",
            "input_type_shape": [{"uint8": [1]}],
            "provider": "CPUExecutionProvider",
        },
    }
    (row,) = layers_of([event, event])
    assert "/model.0/conv/Conv" in row.covers
    assert row.dtype == "int8"
