"""Tokens to codes and back, on whatever device the tokens are.

    z = (x - mean) / std          static, per (layer, channel), from a calibration sample: tames outlier channels
    scale = max |z| / 127         float16, per (layer, frame, token)
    q = round(z / scale)          int8
    x' = q · scale · std + mean   on the device that trains: half the bytes on disk, in memory and over the bus

The error of a value is at most half a step of its token, scale · std / 2, plus the rounding of the largest value to the
float16 scale (1/16 of a step at most).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.errors import ClipError
from vidxfer.pipeline.shapes import expect

CODE_MOST = 127
SCALE_LEAST = 2.0**-14  # smallest normal float16: below it a scale loses digits
FLOAT16_MOST = 65504.0
STD_FLOOR = 1e-3  # share of the layer's median std: a channel that was constant must not blow up when it once moves


def encode_int8(tokens: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise float tokens.

    Args:
        tokens: [... layer frame token channel], any float type.
        mean, std: float32 [layer channel].

    Returns:
        codes int8 [... layer frame token channel] and scale float16 [... layer frame token].

    Raises:
        ClipError: a token is not finite, or lies beyond 8 million standard deviations.
    """
    normal = (tokens.float() - mean[:, None, None, :]) / std[:, None, None, :]
    largest = normal.abs().amax(dim=-1)
    if not bool((largest <= FLOAT16_MOST * CODE_MOST).all()):
        raise ClipError(
            "CLIP tokens are not finite, or far outside the calibration sample; they cannot be stored. "
            "If CLIP ran in fp16, extract with --precision bf16 or fp32."
        )
    scale = (largest / CODE_MOST).clamp(SCALE_LEAST, FLOAT16_MOST).half()
    codes = normal.div_(scale.float().unsqueeze(-1)).round_().clamp_(-CODE_MOST, CODE_MOST)
    return codes.to(torch.int8), scale


def decode_int8(codes: Tensor, scale: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The inverse of `encode_int8`, computed in float32 and cast to `dtype`; the shape is that of `codes`."""
    steps = codes.float() * scale.float().unsqueeze(-1)
    return torch.addcmul(mean[:, None, None, :], steps, std[:, None, None, :]).to(dtype)


def encode_float16(tokens: Tensor) -> Tensor:
    """Float tokens as float16, exact to 11 bits.

    Raises:
        ClipError: a token is not finite or its magnitude is above 65504.
    """
    if not bool((tokens.abs() <= FLOAT16_MOST).all()):
        raise ClipError(
            "CLIP tokens are not finite or exceed what float16 holds (65504). Extract with --codec int8, "
            "and if CLIP ran in fp16, with --precision bf16 or fp32."
        )
    return tokens.half()


class Calibration:
    """Running mean and standard deviation per (layer, channel), summed in float64 on the tokens' device."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | None = None
        self._square_sum: Tensor | None = None

    def update(self, tokens: Tensor) -> None:
        """Take in tokens [... layer frame token channel]."""
        layer_first = tokens.detach().movedim(-4, 0).flatten(1, -2)
        self._count += layer_first.shape[1]
        # One layer at a time: the float64 copy of all layers of a batch would be eight times the tokens.
        sums = torch.stack([layer.sum(0, dtype=torch.float64) for layer in layer_first])
        squares = torch.stack([layer.double().square_().sum(0) for layer in layer_first])
        self._sum = sums if self._sum is None else self._sum + sums
        self._square_sum = squares if self._square_sum is None else self._square_sum + squares

    def finish(self) -> tuple[Tensor, Tensor]:
        """Mean and std, float32 [layer channel], on the CPU; std is floored and never zero.

        Raises:
            ClipError: no tokens were seen, or they were not finite.
        """
        if self._sum is None or self._square_sum is None or not self._count:
            raise ClipError("no tokens to calibrate on: not one video of the calibration sample could be encoded")
        mean = self._sum / self._count
        std = (self._square_sum / self._count - mean.square()).clamp_min(0).sqrt()
        if not bool(torch.isfinite(std).all()):
            raise ClipError(
                "CLIP tokens of the calibration sample are not finite; extract with --precision bf16 or fp32"
            )
        return mean.float().cpu(), _floored(std).float().cpu()


def _floored(std: Tensor) -> Tensor:
    """Std with a floor per layer: a share of the layer's median non-zero std, or 1 where every channel is constant."""
    floors = []
    for layer in std:
        # Rounding in the sums leaves constant channels a hair above zero: they are not "moving".
        moving = layer[layer > layer.max() * 1e-6]
        floors.append(moving.median() * STD_FLOOR if moving.numel() else torch.ones_like(layer[0]))
    return torch.maximum(std, torch.stack(floors).unsqueeze(-1))


class Dequantiser(nn.Module):
    """Codes as they were read, to tokens as the head wants them.

    Args:
        spec: the cache's settings.
        mean, std: the cache's channel_mean and channel_std, float32 [layer channel] over all stored layers.
        layers: the layer numbers that were read, in that order; None for all.
        dtype: type of the tokens handed out; the arithmetic is float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: CacheSpec,
        mean: Tensor,
        std: Tensor,
        *,
        layers: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        positions = spec.layer_positions(layers)
        expect("mean", mean, "layer channel", layer=len(spec.layers), channel=spec.channels)
        expect("std", std, "layer channel", layer=len(spec.layers), channel=spec.channels)
        self.codec = spec.codec
        self.dtype = dtype
        # Not persistent: they belong to the cache, and a head's checkpoint must not silently bring another cache's.
        self.register_buffer("mean", mean[positions].float().clone(), persistent=False)
        self.register_buffer("std", std[positions].float().clone(), persistent=False)

    def forward(self, codes: Tensor, scale: Tensor | None) -> Tensor:
        """codes [clip layer frame token channel], scale [clip layer frame token] or None → tokens like codes."""
        expect("codes", codes, "clip layer frame token channel", layer=len(self.mean))
        if self.codec == "float16":
            return codes.to(self.dtype)
        if scale is None:
            raise ValueError("int8 codes need their scale")
        tokens = torch.empty(codes.shape, dtype=self.dtype, device=codes.device)
        # One layer at a time: the float32 intermediate is then a fraction of the result, not twice as large.
        for i, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            steps = codes[:, i].float().mul_(scale[:, i].float().unsqueeze(-1))
            tokens[:, i] = torch.addcmul(mean, steps, std)
        return tokens
