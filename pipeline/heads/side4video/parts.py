"""The building blocks of Side4Video's side network, plain form: what each layer computes.

    state s   [clip channel frame row col]     a video-shaped residual stream, without a class token
    s ─▶ temporal: BN, 1x1x1, depthwise over three frames, 1x1x1 ─▶ spatial attention with a shifted class token ─▶ MLP

Source: docs/spec/tds_clip_side4video.md §2.2. Parameter names are those of the released checkpoints (§11), so weights
need no renaming.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.heads.side4video.norm import BatchNorm

SIDE_HEAD_CHANNELS = 64
"""Width of one attention head."""

FORGOTTEN_LAYERS = 12
"""The release divides by twice this number of layers, for any depth (§4)."""


class Mlp(nn.Module):
    """Linear, GELU, Linear on the last axis, four times as wide inside: [… channel] -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[… channel] -> same."""
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return out


def shifted(cls: Tensor) -> Tensor:
    """Class tokens of the neighbouring frames: the first half from the next one, the second half from the one before.

    Args:
        cls: [clip frame channel].

    Returns:
        The same shape. It holds zeros for a neighbour that does not exist. No frame keeps its own token.
    """
    fold = cls.shape[-1] // 2
    nothing = torch.zeros_like(cls[:, :1])
    after = torch.cat([cls[:, 1:, :fold], nothing[..., :fold]], dim=1)
    before = torch.cat([nothing[..., fold:], cls[:, :-1, fold:]], dim=1)
    return torch.cat([after, before], dim=-1)


class SideBlock(nn.Module):
    """One block of the side network: three residual sub-layers. Layers share no parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn_1 = BatchNorm(channels)
        self.conv = nn.Sequential(
            nn.Conv3d(channels, channels, 1),
            nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), groups=channels),
            nn.Conv3d(channels, channels, 1),
        )
        self.ln_1 = nn.LayerNorm(channels)
        self.attn = nn.MultiheadAttention(channels, channels // SIDE_HEAD_CHANNELS, batch_first=True)
        self.bn_2 = BatchNorm(channels)
        self.mlp = Mlp(channels)

    def forward(self, s: Tensor, cls: Tensor, positions: Tensor) -> Tensor:
        """The next state.

        Args:
            s: [clip channel frame row col].
            cls: class tokens of this layer, [clip frame channel].
            positions: [place channel], one table for all layers and frames.

        Returns:
            As s.
        """
        s = s + self.temporal(s)
        s = s + self.spatial(s, cls, positions)
        normed = rearrange(self.bn_2(s), "clip channel frame row col -> clip frame row col channel")
        out: Tensor = s + rearrange(self.mlp(normed), "clip frame row col channel -> clip channel frame row col")
        return out

    def temporal(self, s: Tensor) -> Tensor:
        """The temporal sub-layer without its residual: [clip channel frame row col] -> same."""
        out: Tensor = self.conv(self.bn_1(s))
        return out

    def spatial(self, s: Tensor, cls: Tensor, positions: Tensor) -> Tensor:
        """The spatial sub-layer without its residual: patches attend to their frame's patches and one class token."""
        clips, _, _, rows, _ = s.shape
        patches = rearrange(s, "clip channel frame row col -> (clip frame) (row col) channel") + positions
        token = rearrange(shifted(cls), "clip frame channel -> (clip frame) 1 channel")
        normed = self.ln_1(torch.cat([token, patches], dim=1))
        read, _ = self.attn(normed[:, 1:], normed, normed, need_weights=False)
        back = "(clip frame) (row col) channel -> clip channel frame row col"
        out: Tensor = rearrange(read, back, clip=clips, row=rows)
        return out

    def initialise(self) -> None:
        """The published normal distributions (§4); convolutions and biases of the MLP keep torch's own."""
        channels = self.ln_1.normalized_shape[0]
        out = channels**-0.5 * (2 * FORGOTTEN_LAYERS) ** -0.5
        nn.init.normal_(self.attn.in_proj_weight, std=channels**-0.5)
        nn.init.normal_(self.attn.out_proj.weight, std=out)
        nn.init.zeros_(self.attn.in_proj_bias)
        nn.init.zeros_(self.attn.out_proj.bias)
        nn.init.normal_(self.mlp.fc1.weight, std=(2 * channels) ** -0.5)
        nn.init.normal_(self.mlp.fc2.weight, std=out)
