"""The building blocks of DiST (ICCV 2023), plain form: what each layer of the two streams computes.

    temporal stream      x  [clip channel dense row col]       TemporalBlock
    integration stream   u  [clip frame token channel]         IntegrationBlock
    x ◀─ IntegrationToTemporal ─ u        sparse frame i feeds dense frames alpha·i … alpha·i + alpha − 1
    x ─ TemporalToIntegration ─▶ u        those dense frames are summed into sparse slot i; each slot has a learned CLS

Source: docs/spec/dist.md §2.2–2.3. Parameter names are those of the released checkpoints (§8), so weights need no
renaming.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

QUICK_GELU_SLOPE = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), CLIP's activation."""
    return x * torch.sigmoid(QUICK_GELU_SLOPE * x)


class QuickGeluMlp(nn.Module):
    """Linear, QuickGELU, Linear on the last axis: [... channel] -> [... channel]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(channels, hidden)
        self.c_proj = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[... channel] -> [... channel]."""
        out: Tensor = self.c_proj(quick_gelu(self.c_fc(x)))
        return out


class TemporalConvs(nn.Module):
    """The two convolutions of a temporal block: over time, then over the picture."""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.c_fc1 = nn.Conv3d(channels, hidden, (kernel, 1, 1), padding=(kernel // 2, 0, 0))
        self.c_fc2 = nn.Conv3d(hidden, channels, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[clip channel dense row col] -> same."""
        out: Tensor = self.c_fc2(quick_gelu(self.c_fc1(x)))
        return out


class TemporalBlock(nn.Module):
    """x -> QuickGELU(x + convs(LN(x))): the activation acts on the sum (spec §2.2)."""

    def __init__(self, channels: int, mlp_ratio: float, kernel: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels)
        self.temporal_net = TemporalConvs(channels, int(channels * mlp_ratio), kernel)

    def forward(self, x: Tensor) -> Tensor:
        """[clip channel dense row col] -> same; the norm is over channels at each position."""
        normed = rearrange(
            self.ln(rearrange(x, "clip channel dense row col -> clip dense row col channel")),
            "clip dense row col channel -> clip channel dense row col",
        )
        out: Tensor = quick_gelu(x + self.temporal_net(normed))
        return out


class IntegrationToTemporal(nn.Module):
    """Patch tokens to the temporal stream: linear, then each sparse frame repeated for its alpha dense frames."""

    def __init__(self, integration_channels: int, temporal_channels: int, alpha: int) -> None:
        super().__init__()
        self.alpha = alpha
        self.linear_fuse = nn.Linear(integration_channels, temporal_channels)

    def forward(self, m: Tensor, rows: int) -> Tensor:
        """[clip frame token channel] -> [clip channel dense row col]; CLS (token 0) is left out. rows: of the grid."""
        patches = self.linear_fuse(m[:, :, 1:])
        upsampled: Tensor = repeat(
            patches,
            "clip frame (row col) channel -> clip channel (frame alpha) row col",
            alpha=self.alpha,
            row=rows,
        )
        return upsampled


class TemporalToIntegration(nn.Module):
    """The temporal stream to tokens: a convolution of kernel and stride alpha over time, and a learned CLS per slot."""

    def __init__(self, integration_channels: int, temporal_channels: int, alpha: int, sparse_frames: int) -> None:
        super().__init__()
        self.linear_fuse = nn.Conv3d(temporal_channels, integration_channels, (alpha, 1, 1), stride=(alpha, 1, 1))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sparse_frames, integration_channels))

    def forward(self, x: Tensor) -> Tensor:
        """[clip channel dense row col] -> [clip frame token channel]."""
        patches = rearrange(self.linear_fuse(x), "clip channel frame row col -> clip frame (row col) channel")
        cls = repeat(self.cls_token, "1 1 frame channel -> clip frame 1 channel", clip=len(x))
        return torch.cat([cls.to(patches.dtype), patches], dim=2)


class TemporalFfn(nn.Module):
    """The temporal path of an integration block: 1x1x1, (no activation), temporal conv, QuickGELU, 1x1x1."""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.c_fc1 = nn.Conv3d(channels, hidden, 1)
        self.c_fc2 = nn.Conv3d(hidden, hidden, (kernel, 1, 1), padding=(kernel // 2, 0, 0))
        self.c_proj = nn.Conv3d(hidden, channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """[clip frame token channel] -> same; mixes over the sparse frames at every token position, CLS included."""
        y = rearrange(u, "clip frame token channel -> clip channel frame token 1")
        y = self.c_proj(quick_gelu(self.c_fc2(self.c_fc1(y))))
        out: Tensor = rearrange(y, "clip channel frame token 1 -> clip frame token channel")
        return out


class IntegrationBlock(nn.Module):
    """u -> spatial path + temporal path, each with its own norm; no residual inside (spec §2.2)."""

    def __init__(self, channels: int, mlp_ratio: float, temporal_mlp_ratio: float, kernel: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels)
        self.ffn = QuickGeluMlp(channels, int(channels * mlp_ratio))
        self.ln_temporal = nn.LayerNorm(channels)
        self.temporal_ffn = TemporalFfn(channels, int(channels * temporal_mlp_ratio), kernel)

    def forward(self, u: Tensor) -> Tensor:
        """[clip frame token channel] -> same."""
        out: Tensor = self.ffn(self.ln(u)) + self.temporal_ffn(self.ln_temporal(u))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention of queries over keys, one shared LayerNorm for both sides, heads of 64 channels.

    The packed projection is named as in torch's MultiheadAttention: `attn.in_proj_weight` etc.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(channels, max(1, channels // 64), batch_first=True)
        self.ln_1 = nn.LayerNorm(channels)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """[batch query channel], [batch key channel] -> [batch query channel], without the residual."""
        normed_query, normed_keys = self.ln_1(query), self.ln_1(keys)
        weights = self.attn.in_proj_weight.chunk(3)
        biases = self.attn.in_proj_bias.chunk(3)
        q, k, v = (
            rearrange(
                F.linear(source, weight, bias),
                "batch position (head channel) -> batch head position channel",
                head=self.attn.num_heads,
            )
            for source, weight, bias in zip((normed_query, normed_keys, normed_keys), weights, biases, strict=True)
        )
        mixed = rearrange(
            F.scaled_dot_product_attention(q, k, v), "batch head position channel -> batch position (head channel)"
        )
        out: Tensor = self.attn.out_proj(mixed)
        return out


class AdaPooling(nn.Module):
    """One pooling block: a query per sparse frame reads its tokens, then one query per clip reads those (spec §2.3)."""

    def __init__(self, channels: int, sparse_frames: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.zeros(1, sparse_frames, channels))
        self.spatial_transformer = CrossAttention(channels)
        self.ln_out_spat_cls_token = nn.LayerNorm(channels)
        self.output_map_spatial_cls_token = QuickGeluMlp(channels, 4 * channels)
        self.temporal_transformer = CrossAttention(channels)
        self.ln_out_temp_cls_token = nn.LayerNorm(channels)
        self.output_map_cls_token = QuickGeluMlp(channels, 4 * channels)

    def forward(self, spatial: Tensor, query: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """One step of both queries.

        Args:
            spatial: [clip frame channel], one query per sparse frame.
            query: [clip 1 channel].
            feature: [clip frame token channel], never updated.

        Returns:
            the updated (spatial, query). The position embedding reaches the temporal keys and values only.
        """
        clips = len(feature)
        keys = rearrange(feature, "clip frame token channel -> (clip frame) token channel")
        s = rearrange(spatial, "clip frame channel -> (clip frame) 1 channel")
        s = s + self.spatial_transformer(s, keys)
        s = s + self.output_map_spatial_cls_token(self.ln_out_spat_cls_token(s))
        spatial = rearrange(s, "(clip frame) 1 channel -> clip frame channel", clip=clips)
        query = query + self.temporal_transformer(query, spatial + self.positional_embedding.to(spatial.dtype))
        query = query + self.output_map_cls_token(self.ln_out_temp_cls_token(query))
        return spatial, query
