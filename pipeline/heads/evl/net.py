"""EVL's decoder: one video token reads a memory of each of some CLIP blocks, the shallowest first (ECCV 2022).

    f_i ─┬────────────────────────────────▶ + ─▶ memory of layer i [clip item channel]
         ├─ convolution over time ────────▶ +
         │  position table over time ─────▶ +
    q_i, k_i ─ neighbour maps ─ tables ───▶ +       q_i, k_i are made of f_(i-1) by CLIP's frozen weights
    x [clip channel] ─ layer 0 ─▶ layer 1 ─▶ … ─▶ x

The three temporal parts can be switched off one by one. With none of them the order of frames cannot be told: this is
multi-layer attentive pooling. A batch is read and never written: it may lie in a buffer that others read too.
Source: docs/spec/evl.md §2–5. Parameter names are those of the released checkpoints (§10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.heads.evl.parts import CrossFrame, DecoderLayer, DecoderMlp, FrozenQueryKey, Maps, neighbour_maps

KERNEL_FRAMES = 3


@dataclass(frozen=True, kw_only=True)
class EvlSizes:
    """Sizes of the decoder and its temporal parts; defaults are the released ones.

    Attributes:
        convolution: of each token over time.
        position: a table over time, which fits one number of frames alone.
        cross_frame: attention between neighbouring frames, out of CLIP's own queries and keys.
        channels: of the decoder's queries, keys and values; None: CLIP's width.
        attention_heads: of the decoder; None: one per 64 channels.
        mlp_ratio: hidden over outer width.
        dropout: share of values left out, inside each MLP and before the classifier.
    """

    convolution: bool = True
    position: bool = True
    cross_frame: bool = True
    channels: int | None = None
    attention_heads: int | None = None
    mlp_ratio: float = 4.0
    dropout: float = 0.5


@dataclass(frozen=True, kw_only=True)
class EvlInput:
    """What a decoder is fed with.

    Attributes:
        frames: per clip.
        grid: patches along the (height, width) of the picture.
        channels: of CLIP.
        clip_heads: of its attention.
        blocks: of CLIP, one per decoder layer.
        frozen: CLIP's parameters by name, of these blocks.
        own: place of each block's output on the layer axis of the tokens.
        before: place of the output of the block before it.
    """

    frames: int
    grid: tuple[int, int]
    channels: int
    clip_heads: int
    blocks: tuple[int, ...]
    frozen: Mapping[str, Tensor]
    own: tuple[int, ...]
    before: tuple[int, ...]


class EvlDecoder(nn.Module):
    """The trainable decoder, and CLIP's frozen weights beside it, which are not among its state.

    Args:
        sizes: of the decoder.
        fed: what it is fed with.
    """

    def __init__(self, sizes: EvlSizes, fed: EvlInput) -> None:
        super().__init__()
        width, layers = fed.channels, range(len(fed.blocks))
        inner = sizes.channels or width
        heads = sizes.attention_heads or (inner // 64 if inner % 64 == 0 else 1)
        hidden = round(sizes.mlp_ratio * width)
        self.own, self.before = fed.own, fed.before
        self.cls_token = nn.Parameter(torch.zeros(width))
        self.decoder_layers = nn.ModuleList(DecoderLayer(width, inner, heads, hidden, sizes.dropout) for _ in layers)
        self.temporal_conv = nn.ModuleList(
            nn.Conv1d(width, width, KERNEL_FRAMES, padding=KERNEL_FRAMES // 2, groups=width)
            for _ in layers
            if sizes.convolution
        )
        self.temporal_pos_embed = nn.ParameterList(
            nn.Parameter(torch.zeros(fed.frames, width)) for _ in layers if sizes.position
        )
        self.cross_attention = nn.ModuleList(CrossFrame(fed.grid, width) for _ in layers if sizes.cross_frame)
        self.frozen = nn.ModuleList(
            FrozenQueryKey(block, fed.clip_heads, fed.frozen) for block in fed.blocks if sizes.cross_frame
        )
        initialise(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """The video token, plain form: the reference for the fast one.

        Args:
            tokens: [clip layer frame token channel], the layers that `EvlInput` names, in its order.

        Returns:
            [clip channel], before the last norm.
        """
        x = self.cls_token.expand(len(tokens), -1)
        for number, layer in enumerate(self.decoder_layers):
            maps = neighbour_maps(*self.frozen[number](tokens[:, self.before[number]])) if len(self.frozen) else None
            memory = self.memory(number, tokens[:, self.own[number]], maps)
            x = layer(x, rearrange(memory, "clip frame token channel -> clip (frame token) channel"))
        return x

    def memory(self, number: int, f: Tensor, maps: Maps | None) -> Tensor:
        """What decoder layer `number` looks at: a block's output and all temporal parts [clip frame token channel].

        Args:
            number: of the decoder layer.
            f: output of its CLIP block, [clip frame token channel].
            maps: how frames look at their neighbours; None: without cross-frame attention.
        """
        total = f
        if len(self.temporal_conv):
            rows = rearrange(f, "clip frame token channel -> (clip token) channel frame")
            over_time = self.temporal_conv[number](rows)
            total = total + rearrange(
                over_time, "(clip token) channel frame -> clip frame token channel", clip=f.shape[0]
            )
        if len(self.temporal_pos_embed):
            total = total + self.temporal_pos_embed[number][:, None]
        if maps is not None:
            previous, following = self.cross_attention[number](maps)
            total = total + beside(previous, first=1) + beside(following, first=0)
        return total


def beside(taken: Tensor, *, first: int) -> Tensor:
    """[clip pair patch channel] of frames `first` … as a term of the memory: zeros for CLS and the frame left over."""
    return nn.functional.pad(taken, (0, 0, 1, 0, first, 1 - first))


def initialise(decoder: EvlDecoder) -> None:
    """The published one (spec §5): Xavier in the layers; token and tables stay zero, convolutions are torch's."""
    for layer in decoder.decoder_layers.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    for layer in decoder.decoder_layers.modules():
        if isinstance(layer, DecoderMlp):
            nn.init.normal_(layer.fc1.bias, std=1e-6)
            nn.init.normal_(layer.fc2.bias, std=1e-6)
