"""Channels last is the layout to train in, except where oneDNN would break the heap."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from edgekit.training.layout import layout_of

# On a CPU with AVX2 and no AVX-512 the same steps in channels_last die within a few rounds.
STEPS = """
import torch
from edgekit.models.classifiers import build_classifier
from edgekit.training.layout import layout_of

torch.manual_seed(0)
torch.set_num_threads(1)
for _ in range(12):
    net = build_classifier("resnet", nc=10, options={"widths": [4, 6, 8, 12], "depths": [1] * 4, "stem": "small"})
    layout = layout_of(net)
    net = net.to(memory_format=layout)
    for _ in range(12):
        net(torch.rand(64, 3, 16, 16).to(memory_format=layout)).sum().backward()
"""


@pytest.mark.parametrize(
    ("conv", "last"),
    [
        (nn.Conv2d(4, 6, 1, stride=2), False),
        (nn.Conv2d(16, 16, 1, stride=2, groups=4), False),
        (nn.Conv2d(8, 6, 1, stride=2), True),
        (nn.Conv2d(4, 6, 1), True),
        (nn.Conv2d(3, 6, 3, stride=2, padding=1), True),
    ],
)
def test_narrow_strided_convolutions_of_one_pixel_are_not_trained_with_channels_last(
    conv: nn.Conv2d, last: bool
):
    found = layout_of(nn.Sequential(nn.ReLU(), conv))
    assert found == (torch.channels_last if last else torch.contiguous_format)


def test_a_narrow_resnet_trains_without_breaking_its_heap():
    ran = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
