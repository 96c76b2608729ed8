"""The device that gpu.py's parts run on: waiting, timing, memory, its peak; and random batches for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.recipe import ClipShape
from vidxfer.pipeline.precision import AUTOCAST, autocast
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.optimise import soft_cross_entropy, soft_targets

Row = dict[str, Any]
"""A line of a table by column. "holds": a proof's answer. "rates": for `vidxfer plan`, not shown."""

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
CPU = torch.device("cpu")
NEEDS_A_CARD = "needs a card"
CLASSES = 174
MOST_S = 1.0 if CUDA else 0.1
"""Of one measurement; on a CPU it is to be seen only that it works."""


def wait() -> None:
    """Until the device has done everything that was handed over."""
    if CUDA:
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], *, most_s: float = MOST_S, first: int = 2) -> float:
    """Seconds of one call: the median of what fits `most_s`, after calls that are not counted."""
    began, counted = time.monotonic(), []
    for _ in range(first):
        work()
        if time.monotonic() - began > most_s:
            break
    wait()
    end = time.monotonic() + most_s
    while not counted or time.monotonic() < end:
        since = time.perf_counter()
        work()
        wait()
        counted.append(time.perf_counter() - since)
    return statistics.median(counted)


def peak_gb(work: Callable[[], object]) -> float | None:
    """GB that the device holds at most during a call, weights included; None on a CPU."""
    if not CUDA:
        return None
    torch.cuda.reset_peak_memory_stats()
    work()
    wait()
    return torch.cuda.max_memory_allocated() / 1e9


def flop_of(work: Callable[[], object]) -> int:
    """Floating-point operations of a call: products, convolutions and attention, 2 per multiply-add."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def product_rate(precision: str, *, small: bool) -> float:
    """FLOP/s of the largest square product: what the device does at most in this arithmetic, measured."""
    side = 512 if small else 8192
    one, other = (torch.randn(side, side, device=DEVICE, dtype=AUTOCAST[precision] or torch.float32) for _ in range(2))
    return 2.0 * side**3 / seconds_of(lambda: one @ other)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Products of float32 in TF32, or not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def moved(batch: ClipBatch, device: torch.device) -> ClipBatch:
    """The same batch on another device."""
    values = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(batch).items()}
    return ClipBatch(**values)


def offer_for(clip: ClipShape, *, alpha: int, small: bool, frozen: Any = None, clip_heads: int | None = None) -> Offer:
    """What a cache of eight frames offers: of a published CLIP, or of a tiny one of four frames."""
    sizes: dict[str, Any] = {
        "layers": tuple(range(clip.blocks)), "sparse_frames": 8, "grid": clip.grid, "channels": clip.width,
        "embed": clip.embed, "image_px": clip.image_px, "clip_heads": clip_heads,
    }  # fmt: skip
    if small:
        sizes |= {"layers": (0, 1, 2), "sparse_frames": 4, "grid": (2, 2), "channels": 64, "embed": 32, "image_px": 32,
                  "clip_heads": 1}  # fmt: skip
    text = torch.randn(CLASSES, sizes["embed"])
    return Offer(alpha=alpha, classes=CLASSES, text=text, frozen=frozen or {}, logit_scale=100.0, **sizes)


def with_targets(offer: Offer, head: Any, clips: int) -> ClipBatch:
    """A random batch for a head, on the device."""
    batch = offer.fake_batch(head.needs, clips, device=DEVICE)
    targets = soft_targets(torch.arange(clips, device=DEVICE) % CLASSES, CLASSES, 0.1)
    return ClipBatch(**{**vars(batch), "targets": targets})


class Step:
    """A training step of a head: forward, loss, backward, AdamW; nothing waits for the device.

    Args:
        head: on the device. batch: with targets. precision: of the forward.
    """

    def __init__(self, head: nn.Module, batch: ClipBatch, precision: str) -> None:
        self.head, self.batch, self.precision = head.train(), batch, precision
        trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=1e-3, fused=CUDA)

    def __call__(self) -> Tensor:
        """The loss before the step."""
        with self.arithmetic():
            logits = self.head(self.batch)
        loss = soft_cross_entropy(logits, self.batch.targets)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.detach()

    def arithmetic(self) -> AbstractContextManager[object]:
        """What the forward runs in."""
        return nullcontext() if self.precision == "fp32" else autocast(DEVICE, self.precision)
