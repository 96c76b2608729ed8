"""Numbers of a step that the host reads one step later, so that it never waits for the step it has just handed over.

    step k ─▶ numbers on the device ─ copy behind the step ─▶ host ─ read after step k + 1 is handed over ─▶ log, NaN?

A checkpoint is written only after `read(leave=0)`: no state is saved whose losses nobody has read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LATE = 1
"""Steps that are handed over and not read yet. A loader reuses a buffer two steps later (ahead.py), so no more."""


@dataclass(frozen=True, kw_only=True)
class StepNote:
    """What the host knows of a step when it hands it over.

    Attributes:
        step: its number, counted from 1.
        ids: some of its videos, for messages.
        line: what its line of metrics.jsonl says besides the loss; None: it has none.
    """

    step: int
    ids: tuple[str, ...]
    line: dict[str, Any] | None = None


class LateNumbers:
    """Numbers on their way from the device to the host, in the order of their steps."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[StepNote, Tensor, Any]] = deque()

    def put(self, numbers: Tensor, note: StepNote) -> None:
        """Begin to copy a small vector of float64 to the host."""
        host, copied = numbers, None
        if numbers.device.type == "cuda":
            host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            host.copy_(numbers, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(numbers.device))
        self._waiting.append((note, host, copied))

    def read(self, *, leave: int = LATE) -> Iterator[tuple[StepNote, list[float]]]:
        """Notes and numbers of all steps but the last `leave`; waits until the device has done them."""
        while len(self._waiting) > leave:
            note, host, copied = self._waiting.popleft()
            if copied is not None:
                copied.synchronize()
            yield note, host.tolist()
