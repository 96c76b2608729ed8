"""In which arithmetic things are computed: what "auto" means on a device, and the autocast around a forward.

              CPU     CUDA, compute capability 8.0 and later     older CUDA (V100, T4)
    tower     fp32    fp16: CLIP was trained in it               fp16
    head      fp32    bf16                                       fp32

Autocast casts what a product reads. Weights, gradients, the optimiser's state, the loss and what a cache delivers are
float32 all along; the product that turns a "klt" token back is in the head's type, as those that read it. bf16 has the
range of float32, so no loss is scaled; fp16 has not, and heads are not trained in it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from vidxfer.pipeline.errors import UsageError

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Autocast type of a forward by its precision; None: no autocast."""

HEAD_PRECISIONS = ("fp32", "bf16")

BF16_CAPABILITY = (8, 0)
"""First CUDA compute capability with bf16 arithmetic. Older devices emulate it, at a fraction of the speed of fp32."""


def has_bf16(device: torch.device) -> bool:
    """Whether a CUDA device computes in bf16 itself: torch's own `is_bf16_supported` also counts emulation."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_CAPABILITY


def tower_precision(asked: str, device: torch.device) -> str:
    """What CLIP computes in: a key of `AUTOCAST`.

    Raises:
        UsageError: an unknown precision.
    """
    if asked == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    if asked not in AUTOCAST:
        raise UsageError(f"--precision {asked!r} is none of auto, {', '.join(AUTOCAST)}")
    return asked


def head_precision(asked: str, device: torch.device) -> str:
    """What a head computes in, in training and in scoring: "fp32" or "bf16".

    Raises:
        UsageError: an unknown precision, or fp16.
    """
    if asked == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if asked not in HEAD_PRECISIONS:
        why = ": fp16 needs a loss that is scaled, which heads here do without" if asked == "fp16" else ""
        raise UsageError(f"--precision {asked!r} is none of auto, {', '.join(HEAD_PRECISIONS)}{why}")
    return asked


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """What a forward runs in; nothing for "fp32", so that a device without autocast (meta) is not asked for one."""
    kind = AUTOCAST[precision]
    return nullcontext() if kind is None else torch.autocast(device.type, dtype=kind)


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a head runs, and its precision there, "fp32" or "bf16"."""

    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager[object]:
        """What the head's forward runs in; the loss is computed outside of it."""
        return autocast(self.device, self.precision)

    def line(self, asked: str) -> str | None:
        """What a person should know of the choice, said once; None for float32 that nobody need wonder about."""
        cuda = self.device.type == "cuda"
        old = cuda and not has_bf16(self.device)
        name = torch.cuda.get_device_name(self.device) if cuda else str(self.device)
        if self.precision == "bf16":
            slow = "; this device emulates it, --precision fp32 is faster" if old else ""
            return f"head: bf16 autocast on {name}, weights and loss in float32{slow}"
        if asked == "auto" and old:
            return f"head: float32 on {name}, which has no bf16 arithmetic"
        return None
