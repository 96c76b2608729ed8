"""EVL, fast form: the same parameters and the same function as the plain form, in another order of operations.

It is faster, and it is the default.

The two forms differ by exact algebra (docs/spec/evl.md §4.2–4.3 defines the function):

    q · (K ŷ) = (Kᵀ q) · ŷ             one query per clip: the query is projected to the memory's space, and no item of
    Σ aₙ (V ŷₙ) = V (Σ aₙ ŷₙ)          the memory is projected; key biases and the norm's bias cancel in the softmax
    LN(y) = γ ŷ + β                    γ goes to the query and to the sum, β to the sum alone: its weights sum to 1
    f + conv(f)                        one convolution with channels last, whose middle tap is larger by one
    Σ_key map · W[displacement]        for a row of query patches the displacements are a few whole rows of the table:
                                       a slice of it, times maps that are shifted by the patch's column

Parameters are read from the modules of parts.py. Their own `forward` is not called, so hooks on them do not fire.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from vidxfer.pipeline.heads.dist.fast import folded, part
from vidxfer.pipeline.heads.evl.net import EvlDecoder
from vidxfer.pipeline.heads.evl.parts import CrossFrame, DecoderLayer, FrozenQueryKey, Maps


def fast_forward(decoder: EvlDecoder, tokens: Tensor) -> Tensor:
    """The video token [clip channel]; arguments and result as `EvlDecoder.forward`."""
    x = decoder.cls_token.expand(len(tokens), -1)
    for number in range(len(decoder.decoder_layers)):
        memory = with_time(decoder, number, tokens[:, decoder.own[number]])
        if len(decoder.frozen):
            maps = fast_maps(part(decoder.frozen, number, FrozenQueryKey), tokens[:, decoder.before[number]])
            add_beside(memory, part(decoder.cross_attention, number, CrossFrame), maps)
        layer = part(decoder.decoder_layers, number, DecoderLayer)
        x = x + look(layer, layer.norm1(x), memory.flatten(1, 2))
        x = torch.add(x, layer.mlp(layer.norm2(x)))
    return x


def with_time(decoder: EvlDecoder, number: int, f: Tensor) -> Tensor:
    """A block's output plus convolution and position table: [clip frame token channel]. The input is not modified."""
    if len(decoder.temporal_conv):
        conv = part(decoder.temporal_conv, number, nn.Conv1d)
        assert conv.bias is not None
        middle = conv.kernel_size[0] // 2
        weight = (conv.weight + F.pad(conv.weight.new_ones(1), (middle, middle))).unsqueeze(-1)  # f itself, added
        y = F.conv2d(f.permute(0, 3, 1, 2), weight, conv.bias, padding=(middle, 0), groups=f.shape[-1])
        y = y.permute(0, 2, 3, 1).contiguous()  # already so, where the convolution keeps channels last
    else:
        y = f.clone() if len(decoder.temporal_pos_embed) + len(decoder.cross_attention) else f
    if len(decoder.temporal_pos_embed):
        y += decoder.temporal_pos_embed[number][:, None]
    return y


@torch.no_grad()
def fast_maps(frozen: FrozenQueryKey, before: Tensor) -> Maps:
    """The same as `neighbour_maps` of the block's queries and keys. One head at a time, to save memory.

    Args:
        frozen: CLIP's weights of the block.
        before: output of the preceding block, [clip frame token channel].
    """
    heads = frozen.heads
    width = before.shape[-1]
    scale = (width // heads) ** -0.5
    normed = F.layer_norm(before, (width,))
    weight = frozen.weight * frozen.norm_weight
    bias = F.linear(frozen.norm_bias, frozen.weight, frozen.bias)
    q, k = F.linear(normed, weight, bias)[:, :, 1:].chunk(2, dim=-1)
    # Frames come before clips. The frames 1 … of all clips are then contiguous, and a product needs no copy.
    q = rearrange(q * scale, "clip frame patch (head part) -> head frame clip patch part", head=heads).contiguous()
    k = rearrange(k, "clip frame patch (head part) -> head frame clip patch part", head=heads).contiguous()

    def maps(queries: Tensor, keys: Tensor) -> Tensor:
        total = (queries[0] @ keys[0].mT).softmax(dim=-1)
        for head in range(1, heads):
            total += (queries[head] @ keys[head].mT).softmax(dim=-1)
        return total.div_(heads).transpose(0, 1)

    return Maps(maps(q[:, 1:], k[:, :-1]), maps(q[:, :-1], k[:, 1:]))


def add_beside(memory: Tensor, cross: CrossFrame, maps: Maps) -> None:
    """Add cross-frame attention, from both neighbouring frames, to the memory [clip frame token channel], in place."""
    rows, columns = cross.grid
    for table, seen, first in ((cross.w1, maps.previous, 1), (cross.w2, maps.following, 0)):
        by_row = table.view(2 * rows - 1, 2 * columns - 1, -1).unfold(0, rows, 1)  # [row across channel down]
        windows = rearrange(by_row, "row across channel down -> row (down across) channel")
        taken = shifted(seen, cross.grid).to(windows.dtype) @ windows
        frames = memory[:, first : first + seen.shape[1], 1:]
        frames += rearrange(
            taken, "row (clip pair column) channel -> clip pair (row column) channel", clip=len(seen), column=columns
        )


@torch.no_grad()
def shifted(seen: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps whose keys are in the order of the table's displacements.

    The displacement of a key in row r and column c, for a query in row R and column C, is R − r + rows − 1 down: the
    key's row counted from the end, plus R. It is C − c + columns − 1 across: its column counted from the end, plus C.
    The slice of the table begins at R. The shift by C is made here, among zeros:

        columns 3 ── query column 0   k2 k1 k0  0  0
                     query column 1    0 k2 k1 k0  0
                     query column 2    0  0 k2 k1 k0

    Args:
        seen: maps [clip pair query key].
        grid: patches along the (height, width).

    Returns:
        [row (clip pair column) (down across)], rows and columns of the queries.
    """
    rows, columns = grid
    keys = rearrange(
        seen,
        "clip pair (row column) (down across) -> row clip pair down column across",
        row=rows,
        column=columns,
        down=rows,
    ).flip(3, 5)
    wide = F.pad(keys, (0, columns)).flatten(
        -2
    )  # of 2 · columns each; read as rows one shorter, each is one further on
    return rearrange(
        wide[..., : columns * (2 * columns - 1)],
        "row clip pair down (column across) -> row (clip pair column) (down across)",
        column=columns,
    )


def look(layer: DecoderLayer, x: Tensor, memory: Tensor) -> Tensor:
    """The video token's attention over a memory, re-associated for its single query.

    Args:
        layer: whose attention it is.
        x: video token behind its norm, [clip channel].
        memory: [clip item channel], before its norm.

    Returns:
        [clip channel].
    """
    attn, norm = layer.attn, layer.norm3
    heads = attn.heads
    items = F.layer_norm(memory, norm.normalized_shape, eps=norm.eps)
    by_head = "(head part) width -> head part width"
    q = rearrange(attn.q_proj(x), "clip (head part) -> clip head part", head=heads)
    q = q * q.shape[-1] ** -0.5
    # Biases of keys cancel in the softmax: their gradient is zero. It exists, because weight decay acts on them.
    q = q + 0.0 * attn.k_proj.bias.sum()
    keys = rearrange(attn.k_proj.weight, by_head, head=heads)
    query = einsum(q, keys.to(q.dtype), "clip head part, head part width -> clip head width") * norm.weight
    seen = (query.to(items.dtype) @ items.transpose(1, 2)).softmax(dim=-1)
    summed = seen.to(items.dtype) @ items
    weight, bias = folded(norm, attn.v_proj.weight, attn.v_proj.bias)
    values = rearrange(weight, by_head, head=heads).to(summed.dtype)
    seen = einsum(summed, values, "clip head width, head part width -> clip head part").flatten(1)
    out: Tensor = attn.out_proj(seen + bias)
    return out
