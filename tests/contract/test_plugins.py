"""Rules that hold for every plug-in: run over the registry, so a new one is tested on arrival."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit.calibration.layers import choices
from edgekit.calibration.ranges import observe
from edgekit.codecs.curves import thresholds_of
from edgekit.codecs.sensor import Sensor
from edgekit.codecs.sensor_table import Table
from edgekit.core.digest import digest_file
from edgekit.core.errors import MissingError
from edgekit.core.plugins import family
from edgekit.core.records import Contract, Graph, Network, QuantPlan
from edgekit.devices.jetpacks import target_for
from edgekit.devices.profiles import profile_of
from edgekit.gates.protocol import gate_keys
from edgekit.graph.onnx_file import inputs_of, outputs_of, read_onnx
from edgekit.lowering.protocol import Options
from edgekit.measure.parity import largest_error
from edgekit.passes.protocol import Context

pytestmark = pytest.mark.light

ORIN = target_for(profile_of("jetson-agx-orin"))


# What a pass finds that was learned with weights: a curve of 4 bits over a Bayer mosaic.
_SENSOR = Sensor(bits=12, mosaic="RGGB")
_LEVELS = tuple(thresholds_of(np.floor(np.linspace(0, 1, 4096) ** 0.4 * 15).astype(int), _SENSOR, 4))
CODING = Table(
    sensor=_SENSOR,
    bits=4,
    height=64,
    width=64,
    thresholds=(_LEVELS,) * 4,
    scale=1 / 15,
    offset=0.0,
    curve="gamma",
    mode="gain",
    per="sensor",
).settings()


def network_of(path: Path) -> Network:
    model = read_onnx(path)
    contract = Contract(inputs=inputs_of(model), outputs=outputs_of(model))
    return Network(graphs={"main": Graph(path=path, sha256=digest_file(path))}, contract=contract)


def inputs(count: int = 8) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"images": rng.random((1, 3, 64, 64), np.float32)} for _ in range(count)]


def plan_of(path: Path) -> QuantPlan:
    model = onnx.shape_inference.infer_shapes(read_onnx(path))
    from edgekit.calibration.layers import float_tensors

    seen = observe(model, float_tensors(model), inputs())
    return QuantPlan(ranges=seen.over_all(), layers=choices(model), calibration="test")


def reference(path: Path, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))


LOWERINGS = [
    (name, precision, style)
    for name, one in family("lowering").items()
    for precision in one.precisions
    for style in (one.styles if precision == "int8" else ("",))
]


def test_every_backend_has_a_lowering_of_its_name():
    assert set(family("backends")) == set(family("lowering"))


@pytest.mark.parametrize(("name", "precision", "style"), LOWERINGS)
def test_a_lowering_writes_files_of_its_own_that_its_backend_runs(
    detector: Path, tmp_path: Path, name: str, precision: str, style: str
):
    before = detector.read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    plan = plan_of(detector) if precision == "int8" else None
    artifact = family("lowering")[name].lower(
        network_of(detector), plan, Options(precision=precision, style=style, threads=1, target=ORIN), out
    )
    assert detector.read_bytes() == before
    assert artifact.main.parent == out
    assert artifact.main.is_file()
    backend = family("backends")[name]
    if backend.refusal({"arch": "x86_64"}):
        with pytest.raises(MissingError):
            backend.open(artifact)
        return
    given = inputs(1)[0]
    with backend.open(artifact) as session:
        found = session.infer(given)
        session.stage(given)
        session.run_staged()
    error = largest_error(reference(detector, given), found)
    assert error <= {"fp32": 1e-4, "fp16": 0.01, "bf16": 0.02, "int8": 0.05}[precision]
    rows = backend.receipt(artifact, given)
    assert sum(r.share for r in rows) == pytest.approx(1.0, abs=1e-6)
    if precision == "int8":
        assert set(artifact.wanted) == plan.int8_layers()


@pytest.mark.parametrize("name", [n for n, p in family("passes").items() if p.works_on == "onnx"])
def test_a_pass_keeps_inputs_and_outputs_and_says_truly_whether_it_changed_anything(
    detector: Path, tmp_path: Path, name: str
):
    one = family("passes")[name]
    network = network_of(detector)
    out = tmp_path / "out"
    out.mkdir()
    context = Context(out=out, samples=lambda: iter(inputs()), digest="test", coding=CODING)
    change = one.run(network, one.settings(), context)
    model = read_onnx(change.network.main.path)
    if one.recodes:
        coding = change.network.contract.frames.coding
        assert inputs_of(model)[0].shape == family("codecs")[coding.codec].shape(coding.settings)
        assert inputs_of(model) == change.network.contract.inputs
    else:
        assert inputs_of(model) == change.network.contract.inputs == network.contract.inputs
    assert [o.name for o in outputs_of(model)] == [o.name for o in network.contract.outputs]
    touched = change.plan is not None or change.network.main.sha256 != network.main.sha256
    assert change.changed == touched
    assert digest_file(change.network.main.path) == change.network.main.sha256


@pytest.mark.parametrize("name", sorted(family("codecs")))
def test_a_codec_decodes_what_it_encodes_and_says_how_much_it_sends(name: str):
    codec = family("codecs")[name]
    codec.check(CODING)
    signal = np.random.default_rng(0).integers(0, 4096, (4, 64, 64)).astype(np.uint16)
    data = codec.encode(signal, CODING)
    assert (data.dtype, data.shape) == (np.uint8, codec.shape(CODING))
    sent, whole = codec.sizes(CODING)
    assert data.nbytes == sent < whole
    values = codec.decode(data, CODING)
    assert values.dtype == np.float32
    # More light never gives less.
    brighter = codec.decode(codec.encode(np.minimum(signal + 300, 4095).astype(np.uint16), CODING), CODING)
    assert (brighter >= values).all()
    files = codec.files(CODING)
    assert files
    assert {p.partition("/")[0] for p in files} == {"device", "server"}
    assert all(isinstance(v, bytes) and v for v in files.values())


@pytest.mark.parametrize("name", sorted(family("passes")))
def test_a_passes_settings_are_flat_frozen_documented_and_have_defaults(name: str):
    kind = family("passes")[name].settings
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert family("passes")[name].summary
    kind()
    for field in dataclasses.fields(kind):
        assert f"{field.name}:" in (kind.__doc__ or ""), field.name
        assert not dataclasses.is_dataclass(field.type)


def test_gate_keys_are_explained_and_have_one_gate_each():
    keys = [k for gate in family("gates").values() for k in gate.keys]
    assert len(keys) == len(set(keys))
    assert all(gate.keys[key] for key, gate in gate_keys().items())


def test_a_plan_is_written_as_each_engine_is_fast_with(detector: Path, tmp_path: Path):
    plan = plan_of(detector)
    signs = {}
    for name in ("onnxruntime", "tensorrt"):
        out = tmp_path / name
        out.mkdir()
        family("lowering")[name].lower(
            network_of(detector), plan, Options(precision="int8", target=ORIN), out
        )
        model = read_onnx(out / "model.onnx")
        zeros = [i for i in model.graph.initializer if i.name.endswith("::zero")]
        signs[name] = {z.data_type for z in zeros}
    assert onnx.TensorProto.UINT8 in signs["onnxruntime"]
    assert signs["tensorrt"] == {onnx.TensorProto.INT8}, "TensorRT is symmetric"
