"""The curve between a sensor and a network, learned together with it: γ-Quant.

Fatima et al., "γ-Quant: Towards Learnable Quantization for Low-bit Pattern Recognition", GCPR 2025,
arXiv 2509.22448. The form for unsigned sensors is that of the first author's code for raw detection (RawDet-7);
the form for signed sensors, the learned gain and the rules that keep training from collapse are edgekit's own.

A sensor has few values, so the curve is not computed for each pixel: each step makes the table of all values, with
gradients, and looks pixels up in it. What is trained is therefore what is exported, value by value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.codecs.curves import EPSILON, fixed_codes, refuse_wide, thresholds_of, usual_per, value_scale
from edgekit.codecs.sensor import Sensor
from edgekit.codecs.sensor_table import Table
from edgekit.core.errors import RecipeError
from edgekit.training.layout import layout_of

# γ stays between these: with relu(γ) an axis died at γ <= 0 and never came back.
LEAST_GAMMA, MOST_GAMMA = 0.1, 4.0
# The gain stays within this factor of where it began.
_GAIN_RANGE = 4.0
# The smallest base of a power: the gradient of 0^γ is that of log(0).
_SMALLEST = {False: 1e-8, True: 1e-6}
_START = {"paper": {False: 1.0, True: 0.4}, "gain": {False: 0.5, True: 0.7}}
_UNSIGNED_REACH, _SIGNED_REACH = 0.95, 0.99
# A mosaic's greens share their parameters, one set a colour; or each position has its own.
_GROUPS = {"channel": (0, 1, 1, 2), "mosaic": (0, 1, 2, 3)}


class Curve(nn.Module):
    """From a sensor's integers to the values that the network sees, over a few bits.

    Args:
        sensor: Whose values come in.
        bits: Kept of each.
        curve: gamma (learned), or linear, log, mu-law, none.
        mode: Of gamma: `paper` learns γ alone, `gain` a factor and for signed sensors a middle, too.
        per: One set of parameters for the whole sensor, a channel (colour or axis), a mosaic position.
        samples: (C, n) integers of real signals, from which the curve starts; None starts at γ = gain = 1.

    Raises:
        RecipeError: `per` does not go with the sensor, or the samples are constant or saturated.
    """

    def __init__(
        self, sensor: Sensor, *, bits: int = 4, curve: str = "gamma", mode: str = "gain", per: str = "",
        samples: NDArray[np.integer] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.sensor, self.bits, self.curve, self.mode = (
            sensor,
            sensor.bits if curve == "none" else bits,
            curve,
            mode,
        )
        refuse_wide(sensor, self.bits)
        if samples is not None:
            refuse_useless(samples, sensor)
        self.per = usual_per(sensor, per)
        self.scale, self.offset = value_scale(sensor, self.bits, curve)
        self.groups = groups_of(sensor, per)
        x = torch.arange(sensor.values, dtype=torch.float64) + sensor.lowest
        if sensor.signed:
            unit = x / (1 << (sensor.bits - 1))
        else:
            unit = (x - sensor.black) / (sensor.full - sensor.black)
        self.unit: Tensor
        self.gain0: Tensor
        self.fixed: Tensor
        self.register_buffer("unit", unit.float(), persistent=False)
        if curve != "gamma":
            fixed = np.stack([fixed_codes(curve, sensor, bits)] * sensor.channels)
            self.register_buffer("fixed", torch.from_numpy(fixed), persistent=False)
            return
        count = max(self.groups) + 1
        start = _START[mode][sensor.signed] if samples is not None else 1.0
        self.log_gamma = nn.Parameter(torch.full((count,), math.log(start)))
        gain, mu = torch.ones(count), torch.zeros(count)
        if mode == "gain":
            if samples is not None:
                gain, mu = start_of(samples, sensor, self.groups)
            self.bend = nn.Parameter(torch.zeros(count))
            if sensor.signed:
                self.middle = nn.Parameter(mu)
        self.register_buffer("gain0", gain)

    def gamma(self) -> Tensor:
        """Return γ of each group, between 0.1 and 4."""
        return self.log_gamma.clamp(math.log(LEAST_GAMMA), math.log(MOST_GAMMA)).exp()

    def gain(self) -> Tensor:
        """Return the factor of each group, within 4 times of its start."""
        if self.mode != "gain":
            return self.gain0
        bend: Tensor = self.bend.tanh()
        return self.gain0 * (bend * math.log(_GAIN_RANGE)).exp()

    def mu(self) -> Tensor:
        """Return the middle of each group of a signed sensor, as a share of its half range."""
        return self.middle if self.mode == "gain" and self.sensor.signed else torch.zeros_like(self.gain0)

    def codes(self) -> Tensor:
        """Return the code of every value of every channel (C, 2^N), int64, non-decreasing."""
        if self.curve != "gamma":
            return self.fixed
        with torch.no_grad():
            return self._codes(self._shares())[self._map()].long()

    def table(self) -> Tensor:
        """Return the value of every sensor value of every channel (C, 2^N), float32, with gradients."""
        if self.curve != "gamma":
            fixed: Tensor = self.fixed.float() * self.scale + self.offset
            return fixed
        shares = self._shares()
        hard = self._codes(shares.detach()) * self.scale + self.offset
        # Straight through the floor; what is clipped has no gradient, or gain and middle run away at 2 bits.
        return (shares + (hard - shares).detach())[self._map()]

    def forward(self, x: Tensor) -> Tensor:
        """Return the values of integers (B, C, …); a mosaic comes out as three colours, its greens averaged."""
        place = torch.arange(x.shape[1], device=x.device).view(1, -1, *(1,) * (x.ndim - 2))
        values: Tensor = _Look.apply(self.table(), x.long() - self.sensor.lowest + place * self.sensor.values)
        if not self.sensor.mosaic:
            return values
        return torch.cat([values[:, :1], (values[:, 1:2] + values[:, 2:3]) / 2, values[:, 3:]], 1)

    def _map(self) -> Tensor:
        return torch.tensor(self.groups, device=self.unit.device)

    def _shares(self) -> Tensor:
        """Return the curve before its floor, one row a group: 0 to 1, signed -1 to 1."""
        gamma, gain = self.gamma()[:, None], self.gain()[:, None]
        if self.sensor.signed:
            u = (self.unit[None] - self.mu()[:, None]) * gain
            return (u.sign() * u.abs().clamp(min=_SMALLEST[True]) ** gamma).clamp(-1, 1)
        s = (self.unit[None] * gain).clamp(0, 1)
        return s.clamp(min=_SMALLEST[False]) ** gamma

    def _codes(self, shares: Tensor) -> Tensor:
        levels = (1 << self.bits) - 1
        raw = (shares + 1) / 2 * (1 << self.bits) if self.sensor.signed else shares * levels + EPSILON
        # A power may err by one unit in the last place: what rises must stay up.
        return raw.floor().clamp(0, levels).cummax(1).values

    def learned(self) -> dict[str, list[float]]:
        """Return γ, gain and middle of each channel, for people; empty where the curve has none."""
        if self.curve != "gamma":
            return {}
        rows = {"gamma": self.gamma(), "gain": self.gain()}
        if self.sensor.signed:
            rows["mu"] = self.mu()
        return {k: [float(v.detach()[g]) for g in self.groups] for k, v in rows.items()}

    def coded(self, height: int, width: int) -> Table:
        """Return the frozen curve as the codec's table, for planes of that size."""
        codes = self.codes().cpu().numpy()
        rows = () if self.curve == "none" else tuple(thresholds_of(c, self.sensor, self.bits) for c in codes)
        numbers: dict[str, Any] = {k: tuple(v) for k, v in self.learned().items()}
        return Table(
            sensor=self.sensor, bits=self.bits, height=height, width=width, thresholds=rows, scale=self.scale,
            offset=self.offset, curve=self.curve, mode=self.mode if numbers else "", per=self.per if numbers else "", **numbers,
        )  # fmt: skip


class Sensed(nn.Module):
    """A network behind a curve, one module to train: `front` and `net`."""

    def __init__(self, front: Curve, net: Any) -> None:
        super().__init__()
        self.front, self.net = front, net
        self.layout = layout_of(net)

    def forward(self, x: Tensor) -> Any:
        """Return what the network gives for a sensor's integers (B, C, …)."""
        layout = self.layout if x.ndim == 4 else torch.contiguous_format
        return self.net(self.front(x).contiguous(memory_format=layout))


class _Look(torch.autograd.Function):
    """Values of a table by index; the gradient is counted up by value."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        """Return `table.flatten()[index]`."""
        ctx.save_for_backward(index)
        ctx.shape = table.shape
        return torch.take(table, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the table."""
        (index,) = ctx.saved_tensors
        rows = ctx.shape.numel()
        found = torch.bincount(index.flatten(), weights=grads[0].float().flatten(), minlength=rows)
        return found.view(ctx.shape).float(), None


def groups_of(sensor: Sensor, per: str) -> tuple[int, ...]:
    """Return the parameter set of each channel.

    Raises:
        RecipeError: `per` does not go with the sensor.
    """
    per = usual_per(sensor, per)
    if per == "sensor":
        return (0,) * sensor.channels
    if sensor.mosaic and per in _GROUPS:
        return _GROUPS[per]
    if sensor.axes and per in {"axis", "channel"}:
        return tuple(range(sensor.channels))
    kind = (
        "a mosaic has sensor, channel, mosaic" if sensor.mosaic else "a time series has sensor, axis, channel"
    )
    kind = kind if sensor.mosaic or sensor.axes else "a sensor of one plane has sensor alone"
    raise RecipeError(
        f"passes.gamma-quant: per: {per} does not go with this sensor", hint=f"There are: {kind}."
    )


def start_of(samples: NDArray[np.integer], sensor: Sensor, groups: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return gain and middle of each group, from quantiles of real signals (C, n)."""
    gains, middles = [], []
    for group in range(max(groups) + 1):
        rows = [k for k, g in enumerate(groups) if g == group]
        x = samples[rows].ravel().astype(np.float64)
        if sensor.signed:
            u = x / (1 << (sensor.bits - 1))
            middle = float(np.median(u))
            reach = float(np.quantile(np.abs(u - middle), _SIGNED_REACH))
        else:
            middle = 0.0
            reach = float(np.quantile((x - sensor.black) / (sensor.full - sensor.black), _UNSIGNED_REACH))
        gains.append(1 / max(reach, 1 / sensor.values))
        middles.append(middle)
    return torch.tensor(gains, dtype=torch.float32), torch.tensor(middles, dtype=torch.float32)


def refuse_useless(samples: NDArray[np.integer], sensor: Sensor) -> None:
    """Refuse signals (C, n) that say nothing: constant, saturated or black in a channel.

    Raises:
        RecipeError: They are; the message names the channel.
    """
    for name, row in zip(sensor.names, samples, strict=True):
        _refuse_useless(row.astype(np.float64), sensor, name)


def _refuse_useless(x: NDArray[np.float64], sensor: Sensor, what: str) -> None:
    if x.size == 0 or x.min() == x.max():
        raise RecipeError(
            f"passes.gamma-quant: the calibration signal of {what} is constant",
            hint="Give signals in which something happens.",
        )
    if sensor.signed:
        at_end = (x <= sensor.lowest) | (x >= sensor.lowest + sensor.values - 1)
    else:
        at_end = x >= sensor.full
    full = float(at_end.mean())
    if full > 0.5:
        raise RecipeError(
            f"passes.gamma-quant: {full:.0%} of the calibration signal of {what} is saturated",
            hint="Is `white` or `bits` right? Record with less exposure or range otherwise.",
        )
    if not sensor.signed and float((x <= sensor.black).mean()) > 0.99:
        raise RecipeError(
            f"passes.gamma-quant: the calibration signal of {what} is black", hint="Is `black` right?"
        )
