"""TDS-CLIP, fast form: Side4Video's fast form with the two adapters, the order of operations changed. The default.

    SME    Windows are cut into patches once, and differences are taken between patches. At evaluation the weights take
           up both norms and the differences: W · (x2 − x1) = W x2 − W x1. One product with the window remains.
    TD     Half d plus half its mean over channels is a product. The 1x1 convolution behind it takes it up.

`docs/spec/tds_clip_side4video.md` §3 defines the function. side4video/fast.py describes the other parts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidxfer.pipeline.heads.side4video import fast
from vidxfer.pipeline.heads.side4video.net import Side4VideoNet
from vidxfer.pipeline.heads.side4video.parts import SideBlock
from vidxfer.pipeline.heads.tds.net import TdsNet
from vidxfer.pipeline.heads.tds.parts import TdBlock, TdGate, TemporalReference


def fast_forward(net: Side4VideoNet, tokens: Tensor, pixels: Tensor) -> Tensor:
    """Feature of each clip; arguments and result as `TdsNet.forward`."""
    return fast.fast_forward(net, tokens, pixels, begin=stem, over_time=temporal)


def stem(net: Side4VideoNet, pixels: Tensor) -> Tensor:
    """The first state: [clip (frame window) rgb height width] -> [clip frame place channel]."""
    assert isinstance(net, TdsNet)
    if net.local_frames == 1:
        return fast.stem(net, pixels)
    patches = rearrange(
        fast.patches_of(pixels, net.side_conv1),
        "clip (frame window) place number -> clip frame place window number",
        window=net.local_frames,
    )
    if not net.training:
        return stem_at_evaluation(net, patches)
    middle = net.local_frames // 2
    motion = (patches[..., 1:, :] - patches[..., :-1, :]).flatten(3)
    colour = fast.stem_normed(net.side_pre_bn3d, net.side_conv1, patches[..., middle, :])
    return net.beta * colour + net.alpha * fast.stem_normed(net.side_pre_bn3d_c5, net.side_conv1_c5, motion)


def stem_at_evaluation(net: TdsNet, patches: Tensor) -> Tensor:
    """Both branches as one product with the whole window: [clip frame place window (rgb y x)] -> first state."""
    (scale, shift), (moved_scale, moved_shift) = net.side_pre_bn3d.folded(), net.side_pre_bn3d_c5.folded()
    colour, motion = net.side_conv1, net.side_conv1_c5
    assert colour.bias is not None
    assert motion.bias is not None
    as_factor = (-1, 1, 1, 1, 1)
    scale, moved_scale = net.beta * scale, net.alpha * moved_scale
    middle, nothing = net.local_frames // 2, torch.zeros_like(colour.weight)
    of_colour = [nothing] * middle + [colour.weight * scale.view(as_factor)] + [nothing] * middle
    steps = (motion.weight * moved_scale.view(as_factor)).chunk(net.local_frames - 1, dim=1)
    of_motion = [behind - ahead for behind, ahead in zip([nothing, *steps], [*steps, nothing], strict=True)]
    per_frame = [of_frame + of_steps for of_frame, of_steps in zip(of_colour, of_motion, strict=True)]
    weight = torch.cat(per_frame, dim=1)
    bias = colour.bias * scale + net.beta * shift + motion.bias * moved_scale + net.alpha * moved_shift
    return fast.summed_over_time(weight, bias, patches.flatten(3))


def temporal(block: SideBlock, s: Tensor) -> Tensor:
    """The temporal sub-layer without its residual: [clip frame place channel] -> same. Blocks without an adapter are
    Side4Video's."""
    h = fast.temporal(block, s)
    return weighted(block.mse, h) if isinstance(block, TdBlock) else h


def weighted(gate: TdGate, h: Tensor) -> Tensor:
    """The TD-Adapter: [clip frame place channel] -> same."""
    q = fast.product_normed(gate.bn1, fast.pointwise(gate.conv1), h)
    d = q - reference(gate.reference, q)
    out = fast.pointwise(gate.conv2)
    halves = 0.5 * out + (0.5 / out.shape[1]) * out.sum(dim=1, keepdim=True)
    return h * (0.5 + torch.sigmoid(fast.product_normed(gate.bn2, halves, d)))


def reference(module: TemporalReference, q: Tensor) -> Tensor:
    """The reference that is subtracted: [clip frame place channel] -> same."""
    if module.filter is not None:
        return fast.conv_over_time(q, module.filter)
    if module.against == "direct":
        return torch.cat([q[:, :1], q[:, :-1]], dim=1)
    picture = F.max_pool2d(q.permute(0, 3, 1, 2), (module.kernel, 1), stride=1, padding=(module.kernel // 2, 0))
    return picture.permute(0, 2, 3, 1)
