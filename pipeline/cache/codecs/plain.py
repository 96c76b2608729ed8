"""The codecs that need no packing: int8, one scale per token, and float16.

    int8: scale = max |u| / 127, float16, per (layer, frame, token);  q = round(u / scale);  u' = q · scale

The error of an int8 value is at most half a step of its token, scale · std / 2, plus the rounding of the largest value
to the float16 scale (1/16 of a step at most).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidxfer.pipeline.cache.codecs.pack import SCALE_LEAST
from vidxfer.pipeline.cache.codecs.pq import FLOAT16_MOST
from vidxfer.pipeline.errors import ClipError

CODE_MOST = 127


def encode_int8(tokens: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise float tokens.

    Args:
        tokens: [... layer frame token channel], any float type.
        mean, std: float32 [layer channel].

    Returns:
        codes int8 [... layer frame token channel] and scale float16 [... layer frame token].

    Raises:
        ClipError: a token is not finite, or lies more than 8 million standard deviations from the mean.
    """
    return encode_normal_int8((tokens.float() - mean[:, None, None, :]) / std[:, None, None, :])


def encode_normal_int8(normal: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of normalised values. The input is overwritten."""
    largest = expect_finite(normal.abs().amax(dim=-1), FLOAT16_MOST * CODE_MOST)
    scale = (largest / CODE_MOST).clamp(SCALE_LEAST, FLOAT16_MOST).half()
    codes = normal.div_(scale.float().unsqueeze(-1)).round_().clamp_(-CODE_MOST, CODE_MOST)
    return codes.to(torch.int8), scale


def expect_finite(largest: Tensor, most: float) -> Tensor:
    """Hand on what it was given, magnitudes none of which may be above `most`.

    Raises:
        ClipError: one is, or is not finite.
    """
    if not bool((largest <= most).all()):
        raise ClipError(
            "CLIP tokens are not finite, or far outside the calibration sample; they cannot be stored. "
            "If CLIP ran in fp16, extract with --precision bf16 or fp32."
        )
    return largest


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
