"""EVL's decoder (ECCV 2022): one video token attends to a memory of each tapped CLIP block, the shallowest first.

    f_i ─┬────────────────────────────────▶ + ─▶ memory of layer i [clip item channel]
         ├─ convolution over time ────────▶ +
         │  position table over time ─────▶ +
    q_i, k_i ─ neighbour maps ─ tables ───▶ +       CLIP's frozen weights make q_i and k_i of f_(i-1)
    x [clip channel] ─ layer 0 ─▶ layer 1 ─▶ … ─▶ x

Each of the three temporal parts can be switched off. Without all of them the decoder is multi-layer attentive pooling,
which does not see the order of frames. The decoder never modifies a batch: it may lie in a buffer that others read too.
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
        convolution: whether each token is convolved over time.
        position: whether a position table over time is added; it fits only one number of frames.
        cross_frame: whether neighbouring frames attend to each other, by CLIP's own queries and keys.
        channels: width of the decoder's queries, keys and values; None: CLIP's width.
        attention_heads: attention heads of the decoder; None: one per 64 channels.
        mlp_ratio: hidden over outer width of an MLP.
        dropout: share of values set to zero in training, inside each MLP and before the classifier.
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
    """The sizes and frozen weights of a decoder's input.

    Attributes:
        frames: frames per clip.
        grid: patches along the (height, width) of the picture.
        channels: CLIP's width.
        clip_heads: CLIP's attention heads.
        blocks: numbers of the CLIP blocks, one per decoder layer.
        frozen: CLIP's parameters of these blocks, by name.
        own: position of each block's output on the layer axis of the tokens.
        before: position of the preceding block's output.
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
    """The trainable decoder. It also holds CLIP's frozen weights, which are no part of its state.

    Args:
        sizes: sizes of the decoder.
        fed: sizes and frozen weights of its input.
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
        """The memory of one decoder layer: a block's output plus all temporal parts [clip frame token channel].

        Args:
            number: number of the decoder layer.
            f: output of its CLIP block, [clip frame token channel].
            maps: attention between neighbouring frames; None: no cross-frame attention.
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
    """[clip pair patch channel] of the frames from `first` on, padded to the memory's shape: zeros for CLS, and for the
    frame without a pair."""
    return nn.functional.pad(taken, (0, 0, 1, 0, first, 1 - first))


def initialise(decoder: EvlDecoder) -> None:
    """The published initialisation (spec §5): Xavier in the layers, zeros in token and tables, torch's own in the
    convolutions."""
    for layer in decoder.decoder_layers.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    for layer in decoder.decoder_layers.modules():
        if isinstance(layer, DecoderMlp):
            nn.init.normal_(layer.fc1.bias, std=1e-6)
            nn.init.normal_(layer.fc2.bias, std=1e-6)
