"""Numbers of different lengths in bit planes: strong components get more bits than weak ones, every token as many.

    8 components │ bits │ bytes                     group g has bits[g] bits per component, from strong to weak
    group 0      │  7   │ p0 p1 p2 p3 p4 p5 p6      byte k of a group holds bit k of its 8 numbers, component 0 lowest
    group 1      │  5   │ p0 p1 p2 p3 p4
    group 2      │  0   │                           order on disk: plane 0 of all groups, then plane 1 …

    number = floor(value / step) + 2 ** (bits - 1)                    step: one per token
    value' = step · Σ over planes of (±1/2) 2 ** plane                = step · (number - (2 ** bits - 1) / 2)

The planes of a group are its bits, so a token is decoded by adding up rows of a table of 256 rows, one row per byte.
The step is the one among `TRIALS` shares of the largest that leaves the least error: some values are cut off then, all
others get finer steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vidxfer.pipeline.cache.codecs.pack import SCALE_LEAST

TOGETHER = 8
PLANES_MOST = 14
TRIALS = tuple(2 ** (-i / 5) for i in range(10))


def planes_of(bits: Sequence[int]) -> tuple[int, ...]:
    """How many groups, the first ones, have a plane 0, a plane 1 …; bits per group, falling."""
    return tuple(sum(b > plane for b in bits) for plane in range(max(bits, default=0)))


def share_bits(variance: Tensor, total: int) -> list[int]:
    """Bits of every group of 8 components, falling; together `total`, as far as `PLANES_MOST` allows.

    Args:
        variance: of the components [component], falling.
        total: bits of one component of every group; 8 · total bits are what a token takes.
    """
    known = variance.double().cpu().clamp_min(1e-30)
    filled = torch.cat([known, known[-1:].expand(-len(known) % TOGETHER)])
    rate = filled.view(-1, TOGETHER).log2().mean(1) / 2
    low, high = float(rate.min()) - PLANES_MOST - 1, float(rate.max())
    for _ in range(60):  # a bit less of error everywhere costs so many bits: the level that fits is searched
        level = (low + high) / 2
        fits = (rate - level).round().clamp(0, PLANES_MOST).sum() <= total
        low, high = (low, level) if fits else (level, high)
    bits = (rate - high).round().clamp(0, PLANES_MOST)
    for _ in range(total - int(bits.sum())):  # what rounding left goes where it is missed most
        missed = torch.where(bits < PLANES_MOST, rate - high - bits, -torch.inf)
        if bool(torch.isinf(missed).all()):
            break
        bits[missed.argmax()] += 1
    return [int(b) for b in bits.sort(descending=True).values]


def encode_planes(values: Tensor, bits: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
    """Finite float values [... component] to bytes uint8 [... width] and steps float16 [...]."""
    per_component = torch.tensor(bits, device=values.device).repeat_interleave(TOGETHER)
    filled = F.pad(values.float(), (0, len(per_component) - values.shape[-1]))
    levels = 2.0**per_component
    largest = torch.where(per_component > 0, filled.abs() / ((levels - 1) / 2).clamp_min(0.5), 0).amax(-1)
    best, least = torch.zeros_like(largest, dtype=torch.float16), torch.full_like(largest, torch.inf)
    for share in TRIALS:
        step = (largest * share).clamp_min(SCALE_LEAST).half()
        error = (_values(_numbers(filled, step, levels), step, levels) - filled).square_().sum(-1)
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    numbers = _numbers(filled, best, levels).int().view(*filled.shape[:-1], len(bits), TOGETHER)
    weights = 1 << torch.arange(TOGETHER, device=values.device, dtype=torch.int32)
    planes = [
        ((numbers[..., :groups, :] >> plane & 1) * weights).sum(-1, dtype=torch.int32)
        for plane, groups in enumerate(planes_of(bits))
    ]
    if not planes:
        return values.new_zeros((*values.shape[:-1], width), dtype=torch.uint8), best
    codes = torch.cat(planes, dim=-1).to(torch.uint8)
    return F.pad(codes, (0, width - codes.shape[-1])), best


def _numbers(values: Tensor, step: Tensor, levels: Tensor) -> Tensor:
    whole = (values / step.float().unsqueeze(-1)).floor_().add_(levels / 2)
    return torch.minimum(whole, levels - 1).clamp_min_(0)


def _values(numbers: Tensor, step: Tensor, levels: Tensor) -> Tensor:
    return (numbers - (levels - 1) / 2) * step.float().unsqueeze(-1)


def plane_table() -> Tensor:
    """The 8 halves with signs that a byte of plane 0 stands for: float32 [256, 8]."""
    return (torch.arange(256).unsqueeze(-1) >> torch.arange(TOGETHER) & 1).float() - 0.5


def decode_planes(codes: Tensor, step: Tensor, bits: Sequence[int], table: Tensor, *, count: int) -> Tensor:
    """The inverse of `encode_planes`: [... count] in the type of `table`, which is `plane_table` on the device."""
    values = table.new_zeros((*codes.shape[:-1], len(bits) * TOGETHER))
    first = 0
    for plane, groups in enumerate(planes_of(bits)):
        rows = F.embedding(codes[..., first : first + groups].int(), table * 2.0**plane)
        values[..., : groups * TOGETHER] += rows.flatten(-2)
        first += groups
    return values[..., :count] * step.to(table.dtype).unsqueeze(-1)
