"""Side4Video: a video-shaped side network that reads every block of a frozen CLIP.

    frames [clip frame rgb height width] ─ stem ─▶ s [clip channel frame row col]
    tokens [clip layer frame token channel] ─ LN, Linear ─▶ class token, patches
                                                   │           │
    per layer:  s ◀─ half s and half patches ◀─────┼───────────┘
                s ◀─ SideBlock(s, class token) ◀───┘
    last s ─ BN ─ mean over frames and places ─▶ [clip channel]

The tokens are CLIP block outputs before ln_post. Only a layer norm reads them, and no gradient flows to them.
Source: docs/spec/tds_clip_side4video.md §2. Parameter names are those of the released checkpoints (§11).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.side4video.norm import BatchNorm, synchronise
from vidxfer.pipeline.heads.side4video.parts import SIDE_HEAD_CHANNELS, SideBlock

GATES = ("fixed", "learned")
GATE_TEMPERATURE = 0.1


@dataclass(frozen=True, kw_only=True)
class SideSizes:
    """Settings of the side network; defaults are the released B/16 ones (L/14: side_channels=512).

    Attributes:
        side_channels: width of the side network, a multiple of 64; None: by CLIP's width, see `side_width`.
        gate: how a layer's patches are added to the state. "fixed": one half each. "learned": the patches' share is
            sigmoid(a / 0.1), with one `a` per layer that begins at 0, as in LST.
        sync_batchnorm: batch norms take statistics over all devices. As published, each device has its own.

    Raises:
        UsageError: the width is no multiple of 64, or the gate is unknown.
    """

    side_channels: int | None = 320
    gate: str = "fixed"
    sync_batchnorm: bool = False

    def __post_init__(self) -> None:
        width = self.side_channels
        if width is not None and (type(width) is not int or width < 1 or width % SIDE_HEAD_CHANNELS):
            raise UsageError(
                f"head.side_channels={width!r} must be a multiple of {SIDE_HEAD_CHANNELS}, like 320: an attention head "
                f"has {SIDE_HEAD_CHANNELS} channels"
            )
        if self.gate not in GATES:
            raise UsageError(f"head.gate={self.gate!r} is none of {', '.join(GATES)}")

    @property
    def width(self) -> int:
        """The width, when it is decided."""
        assert self.side_channels is not None, "a head settles its settings before it builds the network"
        return self.side_channels


def side_width(channels: int) -> int:
    """Width of the side network for a tower of so many channels, as released: 320 for 768, and 512 for 1024.

    That is 5/12 of the tower's, from 1024 on the half, in whole attention heads and at least one.
    """
    share = channels // 2 if channels >= 1024 else channels * 5 // 12
    return max(1, share // SIDE_HEAD_CHANNELS) * SIDE_HEAD_CHANNELS


def patch_conv(inputs: int, channels: int, patch_px: int, edge_px: int = 0) -> nn.Conv3d:
    """A convolution over three frames and one patch. `edge_px` pads the picture with zeros."""
    return nn.Conv3d(
        inputs, channels, (3, patch_px, patch_px), stride=(1, patch_px, patch_px), padding=(1, edge_px, edge_px)
    )


class SideTransformer(nn.Module):
    """The side network's layers: a norm and a projection of each tap, the blocks, and one table of positions.

    Args:
        sizes: settings.
        offer: what the cache holds.
        blocks: one per layer.
    """

    def __init__(self, sizes: SideSizes, offer: Offer, blocks: list[SideBlock]) -> None:
        super().__init__()
        self.side_spatial_position_embeddings = nn.Parameter(0.01 * torch.randn(offer.tokens - 1, sizes.width))
        self.side_lns = nn.ModuleList(nn.LayerNorm(offer.channels) for _ in blocks)
        self.side_linears = nn.ModuleList(nn.Linear(offer.channels, sizes.width) for _ in blocks)
        self.side_transformer = nn.ModuleList(blocks)
        self.side_gates: nn.Parameter | None = None
        if sizes.gate == "learned":
            self.side_gates = nn.Parameter(torch.zeros(len(blocks)))
        for block in blocks:
            block.initialise()

    def fused(self, layer: int, s: Tensor, patches: Tensor) -> Tensor:
        """The state plus a layer's patches, weighted by the gate. Both have the same shape."""
        if self.side_gates is None:
            return 0.5 * s + 0.5 * patches
        return s + (patches - s) * torch.sigmoid(self.side_gates[layer] / GATE_TEMPERATURE)


class Side4VideoNet(nn.Module):
    """The side network: tokens and frames to one feature per clip.

    Args:
        sizes: settings.
        offer: what the cache holds; its grid may have any height and width.
        layers: CLIP layers that feed it, in order.
    """

    def __init__(self, sizes: SideSizes, offer: Offer, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.grid = offer.grid
        self.side_conv1 = patch_conv(3, sizes.width, offer.patch_px)
        self.side_pre_bn3d = BatchNorm(sizes.width)
        self.transformer = SideTransformer(sizes, offer, self.blocks(sizes, len(layers)))
        self.side_post_bn = BatchNorm(sizes.width)
        if sizes.sync_batchnorm:
            synchronise(self)

    def blocks(self, sizes: SideSizes, layers: int) -> list[SideBlock]:
        """One block per layer."""
        return [SideBlock(sizes.width) for _ in range(layers)]

    def stem(self, pixels: Tensor) -> Tensor:
        """The first state: [clip frame rgb height width] -> [clip channel frame row col]."""
        out: Tensor = self.side_pre_bn3d(self.side_conv1(pixels.transpose(1, 2)))
        return out

    def forward(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Feature of each clip, plain form: the reference for the fast one.

        Args:
            tokens: [clip layer frame token channel], the layers this net was built for, in its order.
            pixels: [clip frame rgb height width], normalised, the frames that CLIP saw.

        Returns:
            [clip channel].
        """
        s, inner = self.stem(pixels), self.transformer
        for k, (norm, linear, block) in enumerate(
            zip(inner.side_lns, inner.side_linears, inner.side_transformer, strict=True)
        ):
            z = linear(norm(tokens[:, k]))
            patches = rearrange(
                z[:, :, 1:], "clip frame (row col) channel -> clip channel frame row col", row=self.grid[0]
            )
            s = block(inner.fused(k, s, patches), z[:, :, 0], inner.side_spatial_position_embeddings)
        out: Tensor = self.side_post_bn(s).mean(dim=(2, 3, 4))
        return out
