"""DiST: a light temporal encoder on dense frames, an integration branch fed by every CLIP block (ICCV 2023).

    dense [clip dense rgb height width] ─ stem ─▶ x ─▶ temporal block ─▶ …
                                                  ▲│ (both exchanges read their side before it is updated)
    tokens [clip layer frame token channel] ─ linear ─▶ m = · + r ─▶ u ─▶ integration block ─▶ r ─▶ …
    last r + u ─▶ ada-pooling ─▶ + Linear(mean CLS) ─▶ LN ─▶ proj ─▶ video embedding

The tokens are CLIP block outputs before ln_post, CLS included. CLIP itself is no part of this module.
Source: docs/spec/dist.md §2–3.
Parameter names are those of the released checkpoints (§8). The last layer's integration-to-temporal net exists as in
the release. It is never computed, because it has no influence on the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.dist.parts import (
    AdaPooling,
    IntegrationBlock,
    IntegrationToTemporal,
    TemporalBlock,
    TemporalToIntegration,
)


@dataclass(frozen=True, kw_only=True)
class DistSizes:
    """Sizes of the branch; defaults are the released SSv2 B/16 ones (K400: pooling_layers=4).

    Attributes:
        integration_channels: width C of the integration stream.
        temporal_channels: width c of the temporal stream.
        pooling_layers: number P of ada-pooling blocks.
        stem_frames: temporal kernel of the stem, in frames.
        kernel_frames: temporal kernel of the blocks, in frames.
        temporal_mlp_ratio: hidden over outer width in a temporal block.
        integration_mlp_ratio: the same in the spatial path of an integration block.
        integration_temporal_mlp_ratio: the same in the temporal path of an integration block.
    """

    integration_channels: int = 384
    temporal_channels: int = 96
    pooling_layers: int = 2
    stem_frames: int = 5
    kernel_frames: int = 3
    temporal_mlp_ratio: float = 1.0
    integration_mlp_ratio: float = 1.0
    integration_temporal_mlp_ratio: float = 0.25


class DistNet(nn.Module):
    """The trainable branch: tokens and dense frames to a video embedding in CLIP's joint space.

    Args:
        config: sizes of the branch.
        offer: what the cache holds.
        layers: CLIP layers that feed it, in order.
    """

    def __init__(self, config: DistSizes, offer: Offer, layers: tuple[int, ...]) -> None:
        super().__init__()
        wide, narrow, alpha = config.integration_channels, config.temporal_channels, offer.alpha
        frames, patch = offer.sparse_frames, offer.patch_px
        self.rows = offer.grid[0]
        self.temporal_stem = nn.Conv3d(
            3,
            narrow,
            (config.stem_frames, patch, patch),
            stride=(1, patch, patch),
            padding=(config.stem_frames // 2, 0, 0),
        )
        self.input_linears = nn.ModuleList(nn.Linear(offer.channels, wide) for _ in layers)
        self.temporal_nets = nn.ModuleList(
            TemporalBlock(narrow, config.temporal_mlp_ratio, config.kernel_frames) for _ in layers
        )
        self.integration2temporal_nets = nn.ModuleList(IntegrationToTemporal(wide, narrow, alpha) for _ in layers)
        self.temporal2integration_nets = nn.ModuleList(
            TemporalToIntegration(wide, narrow, alpha, frames) for _ in layers
        )
        self.integration_nets = nn.ModuleList(
            IntegrationBlock(
                wide, config.integration_mlp_ratio, config.integration_temporal_mlp_ratio, config.kernel_frames
            )
            for _ in layers
        )
        self.adapooling_nets = nn.ModuleList(AdaPooling(wide, frames) for _ in range(config.pooling_layers))
        self.aggregated_cls_token = nn.Parameter(torch.zeros(1, 1, wide))
        self.aggregated_spatial_cls_token = nn.Parameter(torch.zeros(1, 1, wide))
        self.proj_spatial_cls_token = nn.Linear(offer.channels, wide)
        self.ln_post = nn.LayerNorm(wide)
        self.proj = nn.Parameter(torch.zeros(wide, offer.embed))
        initialise(self)

    def forward(self, tokens: Tensor, dense: Tensor) -> Tensor:
        """Video embedding, plain form: the reference for the fast one.

        Args:
            tokens: [clip layer frame token channel], the layers this net was built for, in its order.
            dense: [clip dense rgb height width], normalised; dense = alpha · frame.

        Returns:
            [clip embed], not normalised.
        """
        x = self.temporal_stem(rearrange(dense, "clip dense rgb height width -> clip rgb dense height width"))
        carry: Tensor | None = None
        fused = tokens.new_zeros(())
        last = len(self.input_linears) - 1
        for k in range(last + 1):
            x = self.temporal_nets[k](x)
            m = self.input_linears[k](tokens[:, k])
            m = m if carry is None else m + carry
            fused = m + self.temporal2integration_nets[k](x)
            carry = self.integration_nets[k](fused)
            if k < last:  # nothing reads the last layer's update of x
                x = x + self.integration2temporal_nets[k](m, self.rows)
        assert carry is not None
        return self.pool(carry + fused, tokens[:, -1, :, 0])

    def pool(self, feature: Tensor, cls: Tensor) -> Tensor:
        """Ada-pooling and the CLIP shortcut.

        Args:
            feature: [clip frame token channel] of the integration stream.
            cls: [clip frame channel], CLS rows of the last tapped CLIP layer.

        Returns:
            [clip embed].
        """
        clips, frames = feature.shape[:2]
        spatial = repeat(
            self.aggregated_spatial_cls_token, "1 1 channel -> clip frame channel", clip=clips, frame=frames
        )
        query = repeat(self.aggregated_cls_token, "1 1 channel -> clip 1 channel", clip=clips)
        for block in self.adapooling_nets:
            spatial, query = block(spatial, query, feature)
        shortcut = self.proj_spatial_cls_token(cls.mean(dim=1))
        out: Tensor = self.ln_post(query[:, 0] + shortcut) @ self.proj
        return out


def initialise(net: DistNet) -> None:
    """The published initialisation (spec §2.5): normal 0.02 everywhere but norms, attention inputs and `proj`."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in net.named_parameters():
        if name.endswith(("cls_token", "positional_embedding")):
            nn.init.normal_(parameter, std=0.02)
    nn.init.normal_(net.proj, std=net.proj.shape[0] ** -0.5)
