"""γ-Quant's curve and its table: what is trained is what is exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.curves import fixed_codes
from edgekit.codecs.packing import pack, packed_width, unpack
from edgekit.codecs.sensor import Sensor, check_sensor
from edgekit.codecs.sensor_table import PLUGIN, table_of
from edgekit.core.errors import RecipeError
from edgekit.training.curve import LEAST_GAMMA, MOST_GAMMA, Curve, refuse_useless

BAYER = Sensor(bits=12, mosaic="RGGB")
WEAR = Sensor(bits=12, signed=True, axes=("x", "y", "z"))
DARK = np.random.default_rng(0).integers(20, 600, (4, 500))


def bent(sensor: Sensor, bits: int, mode: str, per: str = "", seed: int = 0) -> Curve:
    """A curve with parameters somewhere in their range, as after a training."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    low, high = (-200, 200) if sensor.signed else (sensor.black + 10, min(900, sensor.full // 2))
    curve = Curve(
        sensor, bits=bits, mode=mode, per=per, samples=rng.integers(low, high, (sensor.channels, 400))
    )
    with torch.no_grad():
        for p in curve.parameters():
            p.add_(torch.randn_like(p) * (0.02 if p is getattr(curve, "middle", None) else 0.4))
    return curve


CURVES = [
    bent(BAYER, 4, "gain"), bent(BAYER, 4, "paper", "mosaic"), bent(BAYER, 2, "gain", "channel"), bent(BAYER, 8, "gain"),
    bent(Sensor(bits=10, black=64, white=1000), 3, "gain"), bent(Sensor(bits=16), 5, "paper"),
    bent(WEAR, 4, "gain"), bent(WEAR, 2, "paper"), bent(WEAR, 3, "gain", "sensor"), bent(Sensor(bits=8), 1, "gain"),
    *(Curve(BAYER, bits=b, curve=c) for b, c in ((4, "linear"), (4, "log"), (3, "mu-law"), (4, "none"))),
    Curve(WEAR, bits=4, curve="mu-law"), Curve(WEAR, bits=4, curve="none"),
]  # fmt: skip


def every_value(curve: Curve) -> torch.Tensor:
    row = torch.arange(curve.sensor.values) + curve.sensor.lowest
    return row.expand(1, curve.sensor.channels, -1)


@pytest.mark.parametrize("curve", CURVES)
def test_the_table_is_the_training_time_code_of_every_value(curve: Curve):
    """G1, through the settings that a bundle carries."""
    table = table_of(curve.coded(1, curve.sensor.values).settings())
    seen = Curve.forward(curve, every_value(curve)).detach().numpy()[0]
    values = table.codes() * np.float32(table.scale) + np.float32(table.offset)
    if curve.sensor.mosaic:
        values = np.stack([values[0], (values[1] + values[2]) / 2, values[3]])
    np.testing.assert_allclose(seen, values, atol=1e-6)
    signal = every_value(curve).numpy()[0][:, None]
    packed = PLUGIN.encode(signal, table.settings())
    back = unpack(packed[0], table.bits, curve.sensor.values)[:, 0]
    assert np.array_equal(back, curve.codes().numpy())


@pytest.mark.parametrize("curve", CURVES)
def test_tables_rise_and_thresholds_say_the_same(curve: Curve):
    """G2."""
    table = curve.coded(1, 1)
    codes, x = table.codes().astype(int), np.arange(curve.sensor.values) + curve.sensor.lowest
    assert (np.diff(codes, axis=1) >= 0).all()
    for row, thresholds in zip(codes, table.thresholds, strict=False):
        present = [t for k, t in enumerate(thresholds, 1) if (row == k).any()]
        assert sorted(set(present)) == present
        assert np.array_equal(np.searchsorted(thresholds, x, side="right"), row)
    if not curve.sensor.signed:
        assert (codes[:, 0] == 0).all()


@pytest.mark.parametrize("sensor_bits", range(8, 17))
def test_gamma_one_is_the_integer_rule(sensor_bits: int):
    """G3: (x * L) div (2^N - 1)."""
    for bits in range(1, 9):
        sensor, levels = Sensor(bits=sensor_bits), (1 << bits) - 1
        rule = np.arange(1 << sensor_bits) * levels // ((1 << sensor_bits) - 1)
        for curve in ("gamma", "linear"):
            assert np.array_equal(Curve(sensor, bits=bits, curve=curve).codes().numpy()[0], rule)


def test_gradient_reaches_gamma_where_all_codes_are_zero():
    """G4: a dark batch at γ = 1."""
    curve = Curve(BAYER, bits=4, mode="paper")
    dark = torch.randint(0, 200, (2, 4, 8, 8))
    assert curve.codes()[0, :200].max() == 0
    curve(dark).sum().backward()
    assert curve.log_gamma.grad.abs().sum() > 0


def test_what_is_clipped_has_no_gradient():
    """G4."""
    curve = Curve(Sensor(bits=12), bits=4, samples=DARK[:1])
    bright = torch.full((1, 1, 4, 4), 4000)
    curve(bright).sum().backward()
    assert curve.log_gamma.grad.abs().sum() == 0
    assert curve.bend.grad.abs().sum() == 0
    signed = Curve(WEAR, bits=4, samples=np.random.default_rng(0).integers(-50, 50, (3, 200)))
    signed(torch.full((1, 3, 9), 2000)).sum().backward()
    assert signed.middle.grad.abs().sum() == 0


@pytest.mark.parametrize("sensor", [BAYER, WEAR])
@pytest.mark.parametrize("sign", [-1, 1])
def test_gamma_stays_in_its_range_at_an_absurd_rate(sensor: Sensor, sign: int):
    """G5."""
    curve = bent(sensor, 4, "gain")
    optimizer = torch.optim.Adam(curve.parameters(), lr=1.0)
    x = torch.randint(0, 500, (2, sensor.channels, 8, 8))
    for _ in range(200):
        optimizer.zero_grad()
        (sign * curve(x)).sum().backward()
        optimizer.step()
        assert ((curve.gamma() >= LEAST_GAMMA - 1e-6) & (curve.gamma() <= MOST_GAMMA + 1e-5)).all()
    assert torch.isfinite(curve.table()).all()


@given(bits=st.integers(1, 16), width=st.integers(1, 41), seed=st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_packing_and_unpacking_is_the_identity(bits: int, width: int, seed: int):
    """G6 and G8, for every number of bits."""
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (2, 3, width))
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (2, 3, packed_width(width, bits)) == (2, 3, -(-width * bits // 8))
    assert np.array_equal(unpack(packed, bits, width), codes)


def test_the_first_sample_lies_in_the_low_half():
    assert pack(np.array([0x3, 0xA, 0xF]), 4).tolist() == [0xA3, 0x0F]
    assert pack(np.array([1, 2, 3, 0, 1]), 2).tolist() == [0b00111001, 1]
    # Eight 3-bit codes in three bytes, the first in the lowest bits.
    assert pack(np.arange(8), 3).tolist() == [0b10001000, 0b11000110, 0b11111010]


def test_codes_around_the_middle_differ_and_are_opposite():
    """G10: mid-rise."""
    for bits in (2, 3, 4):
        curve = Curve(
            WEAR, bits=bits, mode="gain", samples=np.random.default_rng(0).integers(-90, 110, (3, 900))
        )
        middle = [round(m * 2048) for m in curve.mu().tolist()]
        codes = curve.codes().numpy()
        for row, m in zip(codes, middle, strict=True):
            assert row[m + 1 + 2048] == row[m - 1 + 2048] + 1
        values = np.arange(1 << bits) * curve.scale + curve.offset
        np.testing.assert_allclose(values, -values[::-1], atol=1e-7)


def test_fixed_curves_against_their_formulas():
    x = np.arange(4096)
    assert np.array_equal(
        fixed_codes("log", Sensor(bits=12), 4), np.floor(np.log(1 + x) / np.log(4096) * 15 + 1e-6).astype(int)
    )
    mu = fixed_codes("mu-law", Sensor(bits=12, signed=True), 4)
    # G.711: half of the codes lie within 1/16 of the range around zero (log(1 + 255/16) is half of log(256)).
    assert (mu[2048:] - 8 < 4).sum() == pytest.approx(2048 / 17, abs=2)
    with pytest.raises(RecipeError, match="mu-law"):
        fixed_codes("log", WEAR, 4)


@pytest.mark.parametrize(
    ("sensor", "word"),
    [
        (Sensor(bits=24), "16"), (Sensor(bits=12, black=500, white=400), "rise"), (Sensor(bits=12, white=5000), "4095"),
        (Sensor(bits=12, mosaic="RGBW"), "RGGB"), (Sensor(bits=12, signed=True, black=4), "unsigned"),
        (Sensor(bits=12, mosaic="RGGB", axes=("x",)), "images"),
    ],
)  # fmt: skip
def test_a_sensor_that_cannot_be_is_refused(sensor: Sensor, word: str):
    with pytest.raises(RecipeError, match=word):
        check_sensor(sensor, "data.yaml")


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        (np.full((4, 99), 300), "constant"), (np.tile([4095, 4095, 7], (4, 33)), "saturated"),
        (np.tile([2000, 3000, 7], (4, 33)), "saturated"), (np.tile([64, 63] * 60, (4, 1)), "black"),
    ],
)  # fmt: skip
def test_useless_calibration_is_refused(samples: np.ndarray, word: str):
    sensor = Sensor(bits=12, black=64, white=1000 if samples.max() == 3000 else 0, mosaic="RGGB")
    with pytest.raises(RecipeError, match=word):
        refuse_useless(samples, sensor)
    with pytest.raises(RecipeError, match=word):
        Curve(sensor, samples=samples)


def test_more_bits_than_the_sensor_has_are_refused():
    with pytest.raises(RecipeError, match="sensor of 4"):
        Curve(Sensor(bits=4), bits=8)


def test_damaged_settings_are_refused():
    said = bent(BAYER, 4, "gain").coded(4, 4).settings()
    said["thresholds"][1][3] += 1
    with pytest.raises(RecipeError, match="thresholds"):
        PLUGIN.encode(np.zeros((4, 4, 4), np.uint16), said)


def test_a_frame_of_another_bit_depth_is_refused():
    said = bent(BAYER, 4, "gain").coded(4, 4).settings()
    with pytest.raises(RecipeError, match="12-bit"):
        PLUGIN.encode(np.full((4, 4, 4), 60000, np.uint16), said)
    with pytest.raises(RecipeError, match="wanted"):
        PLUGIN.encode(np.zeros((4, 4, 6), np.uint16), said)


@pytest.mark.parametrize(
    ("sensor", "per", "sets"),
    [(BAYER, "", 1), (BAYER, "channel", 3), (BAYER, "mosaic", 4), (WEAR, "", 3), (WEAR, "sensor", 1)],
)
def test_parameter_sets(sensor: Sensor, per: str, sets: int):
    assert len(Curve(sensor, per=per).log_gamma) == sets


def test_per_that_does_not_fit_is_refused():
    with pytest.raises(RecipeError, match="axis"):
        Curve(BAYER, per="axis")
    with pytest.raises(RecipeError, match="mosaic"):
        Curve(WEAR, per="mosaic")
