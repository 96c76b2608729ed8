"""DiST, fast form: the same parameters and the same function as the plain form, in another order of operations.

It is faster, and it is the default.

    x  [clip dense place channel]    place = row · grid + col. Channels are last: a norm over channels and a
                                     convolution over time or over the picture (conv2d) then need no copy.
    u  [clip frame token channel]    as in the plain form

The two forms differ by exact algebra (docs/spec/dist.md §2.2–2.3 defines the function):

    QuickGELU(z) = silu(1.702 z) / 1.702     one kernel forward and one backward; the neighbouring weights take up the
                                             factors, and the temporal stream is stored as 1.702 x
    LN(u) W = û (γ W) + β W                  û, the norm without its affine part, is made once for both paths of a
                                             block, and once for all pooling blocks
    q · (K û) = (Kᵀ q) · û                   one query per frame: the query goes to the keys' space,
    Σ aₙ (V ûₙ) = V (Σ aₙ ûₙ)                and the values are projected after their sum; key biases cancel in the
                                             softmax, and its weights sum to 1
    a sparse frame for alpha dense ones      a broadcast sum over [clip frame alpha place channel]

Parameters are read from the modules of parts.py. Their own `forward` is not called, so hooks on them do not fire.
No branch depends on values, so `torch.compile(fullgraph=True)` compiles it as one graph.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.heads.dist.net import DistNet
from vidxfer.pipeline.heads.dist.parts import QUICK_GELU_SLOPE as SLOPE
from vidxfer.pipeline.heads.dist.parts import (
    AdaPooling,
    CrossAttention,
    IntegrationBlock,
    IntegrationToTemporal,
    TemporalBlock,
    TemporalToIntegration,
)


def fast_forward(net: DistNet, tokens: Tensor, dense: Tensor) -> Tensor:
    """Video embedding; arguments and result as `DistNet.forward`.

    Args:
        net: whose parameters are used.
        tokens: [clip layer frame token channel].
        dense: [clip dense rgb height width].

    Returns:
        [clip embed].
    """
    clips, layers, frames = tokens.shape[:3]
    x = stem(net.temporal_stem, dense)
    m = u = torch.empty(0)
    for k in range(layers):
        x = temporal_block(part(net.temporal_nets, k, TemporalBlock), x, net.rows)
        rows, linear = tokens[:, k].to(x.dtype).flatten(0, 2), part(net.input_linears, k, nn.Linear)
        if k == 0:
            m = torch.addmm(linear.bias, rows, linear.weight.t(), beta=SLOPE, alpha=SLOPE)
        else:
            m = add_product(m, rows, linear.weight, SLOPE)  # m is the carry, with this layer's bias in it
        u = to_integration(part(net.temporal2integration_nets, k, TemporalToIntegration), x, m)
        if k < layers - 1:
            x = add_integration(part(net.integration2temporal_nets, k, IntegrationToTemporal), x, m)
        following = part(net.input_linears, k + 1, nn.Linear).bias if k < layers - 1 else None
        m = integration_block(part(net.integration_nets, k, IntegrationBlock), u, (clips, frames), following)
    return pool(net, (m + u).view(clips * frames, -1, u.shape[-1]), tokens[:, -1, :, 0])


Kind = TypeVar("Kind", bound=nn.Module)


def part(modules: nn.ModuleList, index: int, kind: type[Kind]) -> Kind:
    """The module of a list at an index, with its type."""
    module = modules[index]
    assert isinstance(module, kind)
    return module


def add_product(total: Tensor, rows: Tensor, weight: Tensor, scale: float = 1.0) -> Tensor:
    """total + scale · rows weightᵀ, all matrices. The result overwrites `total`, so the sum needs no extra pass."""
    return total.addmm_(rows.to(total.dtype), weight.to(total.dtype).t(), alpha=scale)


def conv_over_time(x: Tensor, conv: nn.Conv3d, bias: Tensor) -> Tensor:
    """[clip time place channel] -> same, kernel [time 1 1]; zeros before the first and after the last frame."""
    y = F.conv2d(x.permute(0, 3, 1, 2), conv.weight[..., 0], bias, padding=(conv.kernel_size[0] // 2, 0))
    return y.permute(0, 2, 3, 1)


def bias_of(layer: nn.Linear | nn.Conv3d) -> Tensor:
    """1.702 · bias: what a layer adds to a stream that is carried 1.702-fold."""
    assert layer.bias is not None
    return SLOPE * layer.bias


def stem(conv: nn.Conv3d, dense: Tensor) -> Tensor:
    """Patches as vectors, then a convolution over time: [clip dense rgb height width] -> 1.702 x."""
    patch = conv.kernel_size[1]
    device = dense.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dense = dense.to(torch.get_autocast_dtype(device))  # half the bytes to rearrange
    # One copy, into the order of channels_last: a second one would cost more than the convolution.
    rows = rearrange(dense, "clip dense rgb (row y) (col x) -> clip dense (row col) (rgb y x)", y=patch, x=patch)
    vectors = rows.permute(0, 3, 1, 2)
    weight = rearrange(conv.weight, "out rgb time y x -> out (rgb y x) time 1")
    x = F.conv2d(vectors, SLOPE * weight, bias_of(conv), padding=(conv.kernel_size[0] // 2, 0))
    return x.permute(0, 2, 3, 1)


def temporal_block(block: TemporalBlock, x: Tensor, grid: int) -> Tensor:
    """1.702 x [clip dense place channel] -> the same of the next layer. The norm's eps is scaled by 1.702² too."""
    norm, first, second = block.ln, block.temporal_net.c_fc1, block.temporal_net.c_fc2
    normed = F.layer_norm(x, norm.normalized_shape, SLOPE * norm.weight, SLOPE * norm.bias, norm.eps * SLOPE**2)
    hidden = F.silu(conv_over_time(normed, first, bias_of(first)))
    as_picture = "clip dense (row col) channel -> (clip dense) channel row col"
    y = F.conv2d(rearrange(hidden, as_picture, row=grid), second.weight[:, :, 0], bias_of(second), padding=1)
    y = F.silu(y.add_(rearrange(x, as_picture, row=grid)))
    return rearrange(y, "(clip dense) channel row col -> clip dense (row col) channel", clip=len(x))


def add_integration(net: IntegrationToTemporal, x: Tensor, m: Tensor) -> Tensor:
    """Add the patch tokens to the temporal stream, each sparse frame to its alpha dense frames.

    Args:
        x: 1.702 x, [clip dense place channel].
        m: 1.702 m, [(clip frame token) channel].

    Returns:
        as x.
    """
    linear = net.linear_fuse
    slots = rearrange(x, "clip (frame alpha) place channel -> clip frame alpha place channel", alpha=net.alpha)
    added = F.linear(m, linear.weight, bias_of(linear)).view(*slots.shape[:2], 1, -1, x.shape[-1])
    return (slots + added[:, :, :, 1:]).view_as(x)  # projected with CLS: a part of m would have to be copied


def to_integration(net: TemporalToIntegration, x: Tensor, m: Tensor) -> Tensor:
    """u: m plus what the temporal stream adds to each token. The rows of CLS are rows of zeros.

    Args:
        x: 1.702 x, [clip dense place channel].
        m: 1.702 m, [(clip frame token) channel].

    Returns:
        1.702 u, as m.
    """
    conv = net.linear_fuse
    slots = rearrange(
        x, "clip (frame alpha) place channel -> clip frame place alpha channel", alpha=conv.kernel_size[0]
    )
    rows = F.pad(slots, (0, 0, 0, 0, 1, 0)).view(len(x), -1, conv.kernel_size[0] * x.shape[-1])
    cls = (SLOPE * rearrange(net.cls_token, "1 1 frame channel -> frame 1 channel")).to(m.dtype)
    bias = bias_of(conv).to(m.dtype).expand(len(cls), x.shape[2], -1)
    u = m.view(len(x), -1, m.shape[-1]) + torch.cat([cls, bias], dim=1).flatten(0, 1)
    weight = rearrange(conv.weight, "out channel alpha 1 1 -> 1 (alpha channel) out").to(m.dtype)
    # By clips, since u has that shape: of a product written into a view of u, autograd would copy the gradient.
    return u.baddbmm_(rows.to(m.dtype), weight.expand(len(x), -1, -1)).flatten(0, 1)


def integration_block(
    block: IntegrationBlock, u: Tensor, clips_frames: tuple[int, int], following: Tensor | None
) -> Tensor:
    """Both paths of a block, computed from one norm without affine part.

    Args:
        u: 1.702 u, [(clip frame token) channel].
        clips_frames: sizes of its first two axes.
        following: bias of the next layer's input linear, which is added here; None in the last layer.

    Returns:
        1.702 · (carry + following), as u.
    """
    ffn, temporal = block.ffn, block.temporal_ffn
    normed = F.layer_norm(u, u.shape[-1:], eps=block.ln.eps * SLOPE**2).to(u.dtype)  # float32 from CUDA's autocast
    hidden = F.silu(F.linear(normed, *folded(block.ln, ffn.c_fc.weight, ffn.c_fc.bias, SLOPE)))
    mixed = F.linear(normed, *folded(block.ln_temporal, temporal.c_fc1.weight.flatten(1), temporal.c_fc1.bias, SLOPE))
    mixed = mixed.view(*clips_frames, -1, mixed.shape[-1])
    mixed = F.silu(conv_over_time(mixed, temporal.c_fc2, bias_of(temporal.c_fc2))).flatten(0, 2)
    bias = bias_of(ffn.c_proj) + bias_of(temporal.c_proj)
    out = F.linear(hidden, ffn.c_proj.weight, bias if following is None else bias + SLOPE * following)
    return add_product(out, mixed, temporal.c_proj.weight.flatten(1))


def folded(norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """A linear layer that takes the norm's affine part in.

    Returns:
        weight [out in] and bias [out]. Applied to the norm without its affine part, they give `scale` times what the
        given weight and bias give of `norm`.
    """
    return weight * (scale * norm.weight), scale * F.linear(norm.bias, weight, bias)


def pool(net: DistNet, feature: Tensor, cls: Tensor) -> Tensor:
    """As `DistNet.pool`.

    Args:
        feature: 1.702-fold, [(clip frame) token channel].
        cls: [clip frame channel].

    Returns:
        [clip embed].
    """
    clips = len(cls)
    tokens = F.layer_norm(feature, feature.shape[-1:], eps=net.ln_post.eps * SLOPE**2).to(feature.dtype)
    spatial = net.aggregated_spatial_cls_token[0].expand(len(feature), -1)
    query = net.aggregated_cls_token[0].expand(clips, -1)
    for k in range(len(net.adapooling_nets)):
        spatial, query = pooling_block(part(net.adapooling_nets, k, AdaPooling), spatial, query, tokens)
    shortcut = net.proj_spatial_cls_token(cls.mean(dim=1))
    out: Tensor = net.ln_post(query + shortcut) @ net.proj
    return out


def pooling_block(block: AdaPooling, spatial: Tensor, query: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """One step of both queries.

    Args:
        spatial: [(clip frame) channel].
        query: [clip channel].
        tokens: the feature, normed over channels without an affine part, [(clip frame) token channel].

    Returns:
        the updated (spatial, query).
    """
    s = spatial + attend(block.spatial_transformer, spatial, tokens)
    s = s + block.output_map_spatial_cls_token(block.ln_out_spat_cls_token(s))
    keys = s.unflatten(0, (len(query), -1)) + block.positional_embedding.to(s.dtype)
    normed = F.layer_norm(keys, keys.shape[-1:], eps=block.temporal_transformer.ln_1.eps)
    query = query + attend(block.temporal_transformer, query, normed)
    query = query + block.output_map_cls_token(block.ln_out_temp_cls_token(query))
    return s, query


def attend(attention: CrossAttention, query: Tensor, keys: Tensor) -> Tensor:
    """Attention of one query per item, without projecting the keys.

    Args:
        query: [batch channel], not normed.
        keys: bare norm of the keys, [batch key channel].

    Returns:
        [batch channel], without the residual.
    """
    norm, packed = attention.ln_1, attention.attn
    heads = packed.num_heads
    to_query, to_key, to_value = packed.in_proj_weight.chunk(3)
    query_bias, _, value_bias = packed.in_proj_bias.chunk(3)  # a key bias moves every score alike
    per_head = "(head channel) width -> head channel width"
    q = rearrange(F.linear(norm(query), to_query, query_bias), "batch (head channel) -> head batch channel", head=heads)
    scale = 1 / math.sqrt(q.shape[-1])
    asked = torch.bmm(q, rearrange(to_key * (scale * norm.weight), per_head, head=heads))
    scores = torch.bmm(asked.transpose(0, 1), keys.transpose(1, 2))  # batch head key
    mixed = torch.bmm(scores.softmax(dim=-1), keys)  # batch head width
    weight, bias = folded(norm, to_value, value_bias)
    values = torch.bmm(
        mixed.transpose(0, 1), rearrange(weight, "(head channel) width -> head width channel", head=heads)
    )
    out: Tensor = packed.out_proj(
        rearrange(values, "head batch channel -> batch (head channel)") + bias.to(values.dtype)
    )
    return out
