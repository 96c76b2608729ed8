"""Side4Video, fast form: the same parameters and the same function as the plain form, in another order of operations.

It is faster, and it is the default.

    s [clip frame place channel]     place = row · columns + col. Channels are always last: 1x1x1 convolutions are then
                                     Linear, and batch norm and the convolution over time need no copy.

The two forms differ by exact algebra (docs/spec/tds_clip_side4video.md §2 defines the function):

    Linear(LN(tap)) = (γ W) x̂ + W β + b     x̂ needs no gradient, so norm and product have no backward pass to it
    Linear(BN(s)) at evaluation             the norm is a scale and a shift, which go into the product's weights
    stem                                    one product with the patches for all three frames of the kernel
    class token                             shifted alone, before it is concatenated with the patches

Parameters are read from the modules of parts.py. Their own `forward` is not called, so hooks on them do not fire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.heads.side4video.net import Side4VideoNet
from vidxfer.pipeline.heads.side4video.norm import BatchNorm
from vidxfer.pipeline.heads.side4video.parts import SIDE_HEAD_CHANNELS, SideBlock, shifted

Kind = TypeVar("Kind", bound=nn.Module)


def part(modules: nn.Module, index: int, kind: type[Kind]) -> Kind:
    """The module of a list at an index, with its type."""
    assert isinstance(modules, nn.ModuleList | nn.Sequential)
    module = modules[index]
    assert isinstance(module, kind)
    return module


def stem(net: Side4VideoNet, pixels: Tensor) -> Tensor:
    """The first state: [clip frame rgb height width] -> [clip frame place channel]."""
    return stem_normed(net.side_pre_bn3d, net.side_conv1, patches_of(pixels, net.side_conv1))


def temporal(block: SideBlock, s: Tensor) -> Tensor:
    """The temporal sub-layer without its residual: [clip frame place channel] -> same."""
    first, over_time, last = (part(block.conv, place, nn.Conv3d) for place in range(3))
    h = normed_product(block.bn_1, pointwise(first), first.bias, s)
    return F.linear(conv_over_time(h, over_time), pointwise(last), last.bias)


def fast_forward(
    net: Side4VideoNet,
    tokens: Tensor,
    pixels: Tensor,
    *,
    begin: Callable[[Side4VideoNet, Tensor], Tensor] = stem,
    over_time: Callable[[SideBlock, Tensor], Tensor] = temporal,
) -> Tensor:
    """Feature of each clip; arguments and result as `Side4VideoNet.forward`.

    Args:
        net: whose parameters are used.
        tokens: [clip layer frame token channel].
        pixels: [clip frame rgb height width].
        begin: computes the first state; TDS-CLIP has another one.
        over_time: computes the temporal sub-layer; TDS-CLIP has another one.

    Returns:
        [clip channel].
    """
    inner = net.transformer
    s = begin(net, pixels)
    for k in range(tokens.shape[1]):
        block = part(inner.side_transformer, k, SideBlock)
        z = projected(part(inner.side_lns, k, nn.LayerNorm), part(inner.side_linears, k, nn.Linear), tokens[:, k])
        s = inner.fused(k, s, z[:, :, 1:])
        s = over_time(block, s) + s
        s = spatial(block, s, z[:, :, 0], inner.side_spatial_position_embeddings) + s
        hidden = F.gelu(normed_product(block.bn_2, block.mlp.fc1.weight, block.mlp.fc1.bias, s))
        s = F.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias) + s
    return pooled(net.side_post_bn, s)


def projected(norm: nn.LayerNorm, linear: nn.Linear, tap: Tensor) -> Tensor:
    """Linear(LN(tap)): [clip frame token channel] -> [clip frame token side], the affine part in the weights."""
    bare = F.layer_norm(tap, norm.normalized_shape, eps=norm.eps)
    bias = torch.addmv(linear.bias, linear.weight, norm.bias)
    return F.linear(bare, linear.weight * norm.weight, bias)


def normed_product(norm: BatchNorm, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Linear(BN(x)) on the last axis. At evaluation it is one product with x."""
    if norm.training:
        return F.linear(norm.rows(x), weight, bias)
    scale, shift = norm.folded()
    moved = weight @ shift
    return F.linear(x, weight * scale, moved if bias is None else bias + moved)


def product_normed(norm: BatchNorm, weight: Tensor, x: Tensor) -> Tensor:
    """BN(x weightᵀ) on the last axis. At evaluation it is one product."""
    if norm.training:
        return norm.rows(F.linear(x, weight))
    scale, shift = norm.folded()
    return F.linear(x, weight * scale[:, None], shift)


def pointwise(conv: nn.Conv2d | nn.Conv3d) -> Tensor:
    """Weight of a 1x1x1 convolution as the weight of a Linear."""
    return conv.weight.flatten(1)


def conv_over_time(x: Tensor, conv: nn.Conv3d) -> Tensor:
    """[clip frame place channel] -> same, depthwise, kernel [frames 1 1]; zeros before the first and after the last.

    torch computes it as conv2d on a picture of frames by places with channels last, which needs no copy.
    """
    picture = x.permute(0, 3, 1, 2)
    out = F.conv2d(picture, conv.weight[..., 0], conv.bias, padding=(conv.kernel_size[0] // 2, 0), groups=conv.groups)
    return out.permute(0, 2, 3, 1)


def patches_of(pixels: Tensor, conv: nn.Conv3d) -> Tensor:
    """Patches as vectors: [clip frame rgb height width] -> [clip frame place (rgb y x)].

    If the convolution pads the picture by one line, patches begin one line outside, and the last line is not read.
    """
    patch, edge = conv.kernel_size[1], int(conv.padding[1])
    device = pixels.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        pixels = pixels.to(torch.get_autocast_dtype(device))  # half the bytes to rearrange
    if edge:
        pixels = F.pad(pixels, (edge, -edge, edge, -edge))
    return rearrange(pixels, "clip frame rgb (row y) (col x) -> clip frame (row col) (rgb y x)", y=patch, x=patch)


def stem_normed(norm: BatchNorm, conv: nn.Conv3d, patches: Tensor) -> Tensor:
    """BN(conv) of patches: [clip frame place (rgb y x)] -> [clip frame place channel]."""
    weight, bias = conv.weight, conv.bias
    assert bias is not None
    if norm.training:
        return norm.rows(summed_over_time(weight, bias, patches))
    scale, shift = norm.folded()
    return summed_over_time(weight * scale.view(-1, 1, 1, 1, 1), bias * scale + shift, patches)


def summed_over_time(weight: Tensor, bias: Tensor, patches: Tensor) -> Tensor:
    """A convolution over three frames as one product with each frame, and the sum of neighbours.

    Args:
        weight: [channel rgb frame y x], three frames.
        bias: [channel].
        patches: [clip frame place (rgb y x)].

    Returns:
        [clip frame place channel].
    """
    by_frame = rearrange(weight, "channel rgb frame y x -> (frame channel) (rgb y x)")
    before, current, after = F.linear(patches, by_frame).chunk(3, dim=-1)
    out = current + bias
    out = out + F.pad(before[:, :-1], (0, 0, 0, 0, 1, 0))
    return out + F.pad(after[:, 1:], (0, 0, 0, 0, 0, 1))


def spatial(block: SideBlock, s: Tensor, cls: Tensor, positions: Tensor) -> Tensor:
    """The spatial sub-layer without its residual: patches attend to their frame's patches and to one class token.

    Args:
        s: [clip frame place channel].
        cls: [clip frame channel].
        positions: [place channel].

    Returns:
        As s.
    """
    clips, frames = s.shape[:2]
    attention = block.attn
    patches = s + positions.to(s.dtype)
    tokens = torch.cat([shifted(cls)[:, :, None].to(s.dtype), patches], dim=2).flatten(0, 1)
    normed = F.layer_norm(tokens, block.ln_1.normalized_shape, block.ln_1.weight, block.ln_1.bias, block.ln_1.eps)
    packed = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    # The class token is a query too, one of about a hundred. Leaving it out would copy all the others.
    q, k, v = rearrange(packed, "picture token (which head channel) -> which picture head token channel",
                        which=3, channel=SIDE_HEAD_CHANNELS).unbind(0)  # fmt: skip
    read = F.scaled_dot_product_attention(q, k, v)
    rows = rearrange(
        read[:, :, 1:], "(clip frame) head place channel -> clip frame place (head channel)", clip=clips, frame=frames
    )
    return F.linear(rows, attention.out_proj.weight, attention.out_proj.bias)


def pooled(norm: BatchNorm, s: Tensor) -> Tensor:
    """Mean of BN over frames and places: [clip frame place channel] -> [clip channel]."""
    if norm.training:
        return norm.rows(s).mean(dim=(1, 2))
    scale, shift = norm.folded()
    return s.mean(dim=(1, 2)) * scale + shift
