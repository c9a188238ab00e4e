"""The light detectors' own layers: IRB, IRDCB, LDown, conv_act and UIB (torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.conv import Conv


class IRB(nn.Module):
    """Inverted residual block with two depthwise filters: expand, filter, filter, compress, add.

    Takes and gives (B, c, H, W). With the last BatchNorm's weight at zero it is the identity.
    Expansion 2 is what fits the published parameter totals of HierLight-YOLO (arXiv 2509.22365).
    """

    def __init__(self, c: int, *, expansion: int = 2, project_act: bool = False) -> None:
        super().__init__()
        wide = expansion * c
        self.expand = Conv(c, wide, 1)
        self.first = Conv(wide, wide, 3, g=wide)
        self.second = Conv(wide, wide, 3, g=wide)
        # Linear by default: the usual inverted residual, and what keeps int8 ranges narrow.
        self.compress = Conv(wide, c, 1, act=project_act)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, (B, c, H, W)."""
        filtered: Tensor = self.compress(self.second(self.first(self.expand(x))))
        return x + filtered


class IRDCB(nn.Module):
    """A C2f whose bottlenecks are IRBs: (B, c1, H, W) to (B, c2, H, W).

    Args:
        c1: Channels in.
        c2: Channels out.
        n: IRBs in chain.
        wrapper: What the last 1x1 convolution sees: both halves and every IRB ("c2f"), the first half
            and the last IRB ("csp"), or a 1x1 convolution's output and every IRB ("elan").
        project_act: SiLU after each IRB's last convolution.
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, wrapper: str = "c2f", *, project_act: bool = False
    ) -> None:
        super().__init__()
        half = c2 // 2
        self.c, self.wrapper = half, wrapper
        seen = {"c2f": n + 2, "csp": 2, "elan": n + 1}[wrapper]
        self.cv1 = Conv(c1, half if wrapper == "elan" else 2 * half, 1)
        self.m = nn.ModuleList(IRB(half, project_act=project_act) for _ in range(n))
        self.cv2 = Conv(seen * half, c2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, (B, c2, H, W)."""
        first = self.cv1(x)
        # Split with fixed sizes becomes one ONNX Split; chunk would trace to shape arithmetic.
        parts = [first] if self.wrapper == "elan" else list(first.split((self.c, self.c), 1))
        outputs = [parts[-1]]
        for block in self.m:
            outputs.append(block(outputs[-1]))
        kept = {"c2f": [*parts[:-1], *outputs], "csp": [parts[0], outputs[-1]], "elan": outputs}[self.wrapper]
        joined: Tensor = self.cv2(torch.cat(kept, 1))
        return joined


class LDown(nn.Module):
    """Halve height and width with a depthwise 3x3, then change channels with a 1x1 convolution.

    (B, c1, H, W) to (B, c2, ceil(H / 2), ceil(W / 2)); 11 c1 + c1 c2 + 2 c2 parameters.
    """

    def __init__(self, c1: int, c2: int, *, dw_act: bool = True) -> None:
        super().__init__()
        self.spatial = Conv(c1, c1, 3, 2, g=c1, act=dw_act)
        self.channel = Conv(c1, c2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller map."""
        smaller: Tensor = self.channel(self.spatial(x))
        return smaller


def activation(name: str) -> nn.Module:
    """Return MobileNetV4's activation: ReLU6 as published, ReLU where timm's weights are used."""
    return nn.ReLU(inplace=True) if name == "relu" else nn.ReLU6(inplace=True)


def conv_act(c1: int, c2: int, k: int, s: int, *, act: str = "relu6") -> Conv:
    """Return Conv2d, BatchNorm and MobileNetV4's activation: (B, c1, H, W) to (B, c2, H / s, W / s)."""
    return Conv(c1, c2, k, s, act=activation(act))


class UIB(nn.Module):
    """Universal inverted bottleneck of MobileNetV4 (arXiv 2404.10518, section 3).

    Optional depthwise k1 (linear), 1x1 expand, optional depthwise k2 (carries the stride), 1x1 project
    (linear); the input is added where stride is 1 and widths agree.

    Args:
        c1: Channels in.
        c2: Channels out.
        k1: Side of the depthwise kernel before the expansion; 0 leaves it out.
        k2: Side of the one after it; 0 leaves it out.
        s: Stride, 1 or 2.
        r: Expansion.
        act: relu6 or relu.
        residual: Add the input; MS-YOLO's authors leave it out.
    """

    def __init__(
        self, c1: int, c2: int, k1: int, k2: int, s: int, r: float,
        *, act: str = "relu6", residual: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        wide = int(c1 * r + 4) // 8 * 8
        self.start = Conv(c1, c1, k1, 1 if k2 else s, g=c1, act=False) if k1 else nn.Identity()
        self.expand = Conv(c1, wide, 1, act=activation(act))
        self.middle = Conv(wide, wide, k2, s, g=wide, act=activation(act)) if k2 else nn.Identity()
        self.project = Conv(wide, c2, 1, act=False)
        self.add = residual and s == 1 and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, (B, c2, H / s, W / s)."""
        made: Tensor = self.project(self.middle(self.expand(self.start(x))))
        return x + made if self.add else made
