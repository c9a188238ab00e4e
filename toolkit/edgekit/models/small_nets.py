"""The torch modules of the small classifiers, each written from its paper's description."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """What they share: the shape that one takes, and logits (B, classes) out."""

    def __init__(self, shape: tuple[int, ...], nc: int) -> None:
        super().__init__()
        self.shape, self.nc = shape, nc


class DigitsCnn(Small):
    """Two convolutions, a pooling and two linear layers over (B, C, H, W)."""

    def __init__(self, shape: tuple[int, ...], nc: int) -> None:
        super().__init__(shape, nc)
        channels, height, width = shape
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(64 * (height // 2) * (width // 2), 64), nn.ReLU(), nn.Linear(64, nc),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        logits: Tensor = self.body(x)
        return logits


class DeepConvLstm(Small):
    """Four convolutions along time, shared by the axes, then an LSTM (Ordóñez and Roggen, Sensors 2016, 16(1) 115).

    One LSTM layer of 128 units, as Bock et al. (ISWC 2021) found to do as well as the paper's two. The stride of 2 in
    two of the convolutions is ours: a window of 128 samples is 32 steps of the LSTM.
    """

    def __init__(self, shape: tuple[int, ...], nc: int, *, filters: int = 32, units: int = 128) -> None:
        super().__init__(shape, nc)
        layers: list[nn.Module] = []
        for k, stride in enumerate((2, 1, 2, 1)):
            layers += [
                nn.Conv2d(1 if k == 0 else filters, filters, (1, 5), stride=(1, stride), padding=(0, 2)),
                nn.BatchNorm2d(filters), nn.ReLU(),
            ]  # fmt: skip
        self.convolutions = nn.Sequential(*layers)
        self.lstm = nn.LSTM(filters * shape[0], units, batch_first=True)
        self.head = nn.Linear(units, nc)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of signals (B, axes, samples)."""
        found = self.convolutions(x.unsqueeze(1))
        steps = found.permute(0, 3, 1, 2).flatten(2)
        out, _ = self.lstm(steps)
        logits: Tensor = self.head(out[:, -1])
        return logits


class TinyHar(Small):
    """Convolutions along time, attention between axes, their fusion, an LSTM, attention along time.

    Zhou, Zhao, Huang, Riedel and Beigl, "TinyHAR", ISWC 2022: the five parts of its section 3, with 24 filters.
    """

    def __init__(self, shape: tuple[int, ...], nc: int, *, filters: int = 24) -> None:
        super().__init__(shape, nc)
        axes = shape[0]
        layers: list[nn.Module] = []
        for k in range(4):
            layers += [
                nn.Conv2d(1 if k == 0 else filters, filters, (1, 5), stride=(1, 2 if k < 2 else 1), padding=(0, 2)),
                nn.BatchNorm2d(filters), nn.ReLU(),
            ]  # fmt: skip
        self.convolutions = nn.Sequential(*layers)
        self.query, self.key, self.value = (nn.Linear(filters, filters, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(filters)
        self.mix = nn.Sequential(nn.Linear(filters, filters), nn.ReLU(), nn.Linear(filters, filters))
        self.fuse = nn.Linear(axes * filters, 2 * filters)
        self.lstm = nn.LSTM(2 * filters, 2 * filters, batch_first=True)
        self.weigh = nn.Sequential(nn.Linear(2 * filters, 2 * filters), nn.Tanh(), nn.Linear(2 * filters, 1))
        self.head = nn.Linear(2 * filters, nc)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of signals (B, axes, samples)."""
        found = self.convolutions(x.unsqueeze(1)).permute(0, 3, 2, 1)
        weights = self.query(found) @ self.key(found).transpose(-1, -2) / self.norm.normalized_shape[0] ** 0.5
        found = self.norm(found + weights.softmax(-1) @ self.value(found))
        found = found + self.mix(found)
        steps, _ = self.lstm(torch.relu(self.fuse(found.flatten(2))))
        shares = self.weigh(steps).softmax(1)
        # The paper's residual: what attention gathered over all steps, beside the last one.
        logits: Tensor = self.head((shares * steps).sum(1) + steps[:, -1])
        return logits
