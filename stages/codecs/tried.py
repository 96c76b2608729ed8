"""A codec that is only tried: fitted on some tokens, others go through it and back, and nothing is written.

CacheSpec, a name ─▶ the settings with that codec ─ fit ─▶ Tried: tokens ─ quantise ─ decode ─▶ what is left of them
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser, Quantiser
from vidxfer.pipeline.cache.codecs.fit import Fitted
from vidxfer.pipeline.cache.codecs.form import codec_form
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.errors import UsageError


def tried_specs(spec: CacheSpec, codecs: tuple[str, ...]) -> list[CacheSpec]:
    """The settings with each codec in turn.

    Raises:
        UsageError: no such codec.
    """
    try:
        return [replace(spec, codec=codec_form(codec).name) for codec in codecs]
    except ValueError as error:
        raise UsageError(str(error)) from error


def bytes_per_layer(spec: CacheSpec) -> int:
    """Bytes that codes and scales of one layer take per view, checksums and index left out."""
    return sum(spec.form.frame_bytes(spec.tokens, spec.channels)) * spec.sparse_frames


class Tried:
    """A codec that is only tried: tokens through it and back."""

    def __init__(self, spec: CacheSpec, fitted: Fitted, device: torch.device) -> None:
        layers = range(len(spec.layers))
        self._quantise = Quantiser(spec.form, fitted.mean, fitted.std, fitted.arrays, layers).to(device)
        self._decode = Dequantiser(spec, fitted.mean, fitted.std, fitted=fitted.arrays).to(device)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Float tokens [view layer frame token channel], and what is left of them."""
        with torch.no_grad():
            given_back: Tensor = self._decode(*self._quantise(tokens))
        return given_back
