"""What TDS-CLIP adds to a block of Side4Video, plain form: the TD-Adapter.

    h, Side4Video's temporal sub-layer ─ 1x1, BN ─▶ q, a sixteenth of the channels
    d = q − reference of q over time       maximum over the neighbouring frames, a convolution, or the frame before
    h · (0.5 + sigmoid(BN(1x1(half d and half its mean over channels))))

Source: docs/spec/tds_clip_side4video.md §3.2. Parameter names are those of the released checkpoints (§11).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.heads.side4video.norm import BatchNorm
from vidxfer.pipeline.heads.side4video.parts import SideBlock

REDUCTION = 16
"""Channels of the side network per channel of the gate."""


class TemporalReference(nn.Module):
    """The reference of the temporal difference: [clip channel frame row col] -> same.

    "max-pool" is the released one. The paper's other two are not released. Here "convolution" is one learned filter
    over time per channel, with zeros before the first and after the last frame. "direct" is the preceding frame;
    for the first frame it is the frame itself.
    """

    def __init__(self, against: str, channels: int, kernel: int) -> None:
        super().__init__()
        self.against, self.kernel = against, kernel
        self.filter: nn.Conv3d | None = None
        if against == "convolution":
            self.filter = nn.Conv3d(
                channels, channels, (kernel, 1, 1), padding=(kernel // 2, 0, 0), groups=channels, bias=False
            )

    def forward(self, q: Tensor) -> Tensor:
        """[clip channel frame row col] -> same."""
        if self.filter is not None:
            out: Tensor = self.filter(q)
            return out
        if self.against == "direct":
            return torch.cat([q[:, :, :1], q[:, :, :-1]], dim=2)
        return F.max_pool3d(q, (self.kernel, 1, 1), stride=1, padding=(self.kernel // 2, 0, 0))


class TdGate(nn.Module):
    """The TD-Adapter: a factor between 0.5 and 1.5 for each number of the temporal sub-layer."""

    def __init__(self, channels: int, against: str, kernel: int) -> None:
        super().__init__()
        narrow = channels // REDUCTION
        self.conv1 = nn.Conv2d(channels, narrow, 1, bias=False)
        self.bn1 = BatchNorm(narrow)
        self.reference = TemporalReference(against, narrow, kernel)
        self.conv2 = nn.Conv2d(narrow, channels, 1, bias=False)
        self.bn2 = BatchNorm(channels)

    def forward(self, h: Tensor) -> Tensor:
        """[clip channel frame row col] -> same."""
        q = self.bn1(self._on_pictures(self.conv1, h))
        d = q - self.reference(q)
        d = 0.5 * d + 0.5 * d.mean(dim=1, keepdim=True)
        factor = torch.sigmoid(self.bn2(self._on_pictures(self.conv2, d))) - 0.5
        return h + h * factor

    @staticmethod
    def _on_pictures(conv: nn.Conv2d, x: Tensor) -> Tensor:
        pictures = rearrange(x, "clip channel frame row col -> (clip frame) channel row col")
        back = "(clip frame) channel row col -> clip channel frame row col"
        out: Tensor = rearrange(conv(pictures), back, clip=len(x))
        return out


class TdBlock(SideBlock):
    """A block of Side4Video with a TD-Adapter behind its convolutions over time."""

    def __init__(self, channels: int, against: str, kernel: int) -> None:
        super().__init__(channels)
        self.mse = TdGate(channels, against, kernel)

    def temporal(self, s: Tensor) -> Tensor:
        """See `SideBlock`."""
        out: Tensor = self.mse(super().temporal(s))
        return out
