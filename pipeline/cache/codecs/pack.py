"""Values in 6 or 4 bits, one scale per group, packed in bytes that any reader can open.

    scale = max |value of the group| / most       float16; most = 31 or 7
    code  = round(value / scale) + offset         1 … 63 or 1 … 15; offset = 32 or 8

    int4   byte    = code 0 | code 1 << 4
    int6   3 bytes = code 0 | code 1 << 6 | code 2 << 12 | code 3 << 18, lowest byte first

The error of a value is at most half a step, scale / 2, plus the rounding of the group's largest value to that scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

SCALE_LEAST = 2.0**-14
"""Smallest normal float16: below it a scale loses digits."""

PACKED_VALUES = {6: 4, 4: 2}
"""Values after which a byte begins anew."""


def most_of(bits: int) -> int:
    """Largest code of a symmetric range: 31 of 6 bits, 7 of 4, 127 of 8."""
    return (1 << bits - 1) - 1


def encode_grouped(values: Tensor, *, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Finite float values [... value] to packed codes uint8 [... byte] and scales float16 [... group].

    The last group may be shorter; what fills the last bytes decodes to zero.
    """
    count, most = values.shape[-1], most_of(bits)
    filled = F.pad(values.float(), (0, -count % group))
    groups = rearrange(filled, "... (group value) -> ... group value", value=group)
    scale = (groups.abs().amax(dim=-1) / most).clamp_min(SCALE_LEAST).half()
    levels = (groups / scale.float().unsqueeze(-1)).round_().clamp_(-most, most).flatten(-2)
    whole = count + -count % PACKED_VALUES[bits]
    return pack((levels[..., :whole] + (most + 1)).to(torch.uint8), bits=bits), scale


def decode_grouped(codes: Tensor, scale: Tensor, *, bits: int, group: int, count: int) -> Tensor:
    """The inverse of `encode_grouped`, float32 (float64 where the scale is) [... value] with `count` values."""
    dtype = torch.promote_types(scale.dtype, torch.float32)
    levels = unpack(codes, bits=bits)[..., :count].to(dtype).sub_(most_of(bits) + 1)
    if count % group:
        return levels.mul_(scale.to(dtype).repeat_interleave(group, dim=-1)[..., :count])
    groups = rearrange(levels, "... (group value) -> ... group value", value=group)
    return (groups * scale.to(dtype).unsqueeze(-1)).flatten(-2)


def pack(codes: Tensor, *, bits: int) -> Tensor:
    """Codes uint8 below 2 ** bits [... value], a multiple of 2 (4 bits) or 4 (6 bits), to bytes uint8 [... byte]."""
    if bits == 4:
        return codes[..., 0::2] | codes[..., 1::2] << 4
    a, b, c, d = (codes[..., i::4] for i in range(4))
    return torch.stack([a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2], dim=-1).flatten(-2)


def unpack(packed: Tensor, *, bits: int) -> Tensor:
    """The inverse of `pack`."""
    if bits == 4:
        return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)
    x, y, z = (packed[..., i::3] for i in range(3))
    return torch.stack([x & 63, x >> 6 | (y & 15) << 2, y >> 4 | (z & 3) << 4, z >> 2], dim=-1).flatten(-2)
