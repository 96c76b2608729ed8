"""Tokens of one picture as pictures: what they point at as colour, how long they are, how far a codec moves them.

patch tokens of many pictures ─▶ unit length ─▶ 3 main directions ─▶ red, green, blue      same colour: alike tokens
                             └▶ length ─▶ dark to bright                                    massive tokens shine alone

Directions and scales are those of a whole layer, so pictures of one layer may be compared with each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vidxfer.stages.reporting.answers import Numbers
from vidxfer.stages.reporting.drawing import colours
from vidxfer.stages.reporting.strips import png_uri

COMPONENTS = 3
ENDS = (0.02, 0.98)
"""Of the values of a component that darkest and brightest stand for: a few tokens lie far outside."""

SAMPLE_TOKENS = 20_000


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How tokens of one layer become pictures.

    Attributes:
        mean: float32 [channel], of tokens of length 1.
        directions: float32 [channel 3].
        low, high: float32 [3], ends of the colours.
        norms: least, median and largest length.
    """

    mean: Tensor
    directions: Tensor
    low: Tensor
    high: Tensor
    norms: tuple[float, float, float]

    @classmethod
    def of(cls, tokens: Tensor) -> Scale:
        """Of the patch tokens of one layer, float [token channel]; the sign of a direction is that of its largest
        number, so that the same tokens give the same colours."""
        step = max(1, len(tokens) // SAMPLE_TOKENS)
        norms = tokens.float().norm(dim=-1)
        units = F.normalize(tokens[::step].float(), dim=-1)
        mean = units.mean(0)
        centred = (units - mean).double()
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        main = vectors.flip(-1)[:, :COMPONENTS]
        main = main * main.gather(0, main.abs().argmax(0, keepdim=True)).sign()
        values = (centred @ main).float()
        ends = torch.quantile(values, torch.tensor(ENDS), dim=0)
        return cls(
            mean=mean,
            directions=main.float(),
            low=ends[0],
            high=ends[1],
            norms=(float(norms.min()), float(norms.median()), float(norms.max())),
        )

    def colour(self, patches: Tensor) -> str:
        """The picture of patch tokens float [token channel] of one frame, by direction."""
        values = (F.normalize(patches.float(), dim=-1) - self.mean) @ self.directions
        shares = ((values - self.low) / (self.high - self.low).clamp_min(1e-12)).clamp(0, 1)
        if shares.shape[-1] < COMPONENTS:
            shares = F.pad(shares, (0, COMPONENTS - shares.shape[-1]))
        return png_uri(_square(shares.mul(255).round().to(torch.uint8).numpy()))

    def length(self, patches: Tensor) -> str:
        """The same by length, from the least to the largest of the layer."""
        return png_uri(colours(_square(patches.float().norm(dim=-1).numpy()), self.norms[0], self.norms[2]))


def error_picture(truth: Tensor, stored: Tensor, most: float) -> str:
    """Length of the error over length of the token, patch by patch, from 0 to `most`."""
    return png_uri(colours(_square(relative_errors(truth, stored).numpy()), 0.0, most))


def relative_errors(truth: Tensor, stored: Tensor) -> Tensor:
    """Length of the error over length of the token: float32 [...] of [... channel]."""
    errors: Tensor = (stored.float() - truth.float()).norm(dim=-1) / truth.float().norm(dim=-1).clamp_min(1e-12)
    return errors


def _square(values: Numbers) -> Numbers:
    """[patch …] as [row column …]; what is no square stays one row."""
    side = math.isqrt(len(values))
    rows = side if side * side == len(values) else 1
    return values.reshape(rows, -1, *values.shape[1:])
