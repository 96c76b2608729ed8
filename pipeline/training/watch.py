"""What the host hears of the steps, one step late: their losses, their log lines, and whether any process should stop.

step k handed over ─▶ [loss, who asked to stop, own loss] ─ read behind step k + 1 ─┬▶ metrics.jsonl
                                                                                    ├▶ NaN: the run ends here
                                                                                    └▶ all processes stop together
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.training.journal import Journal, peak_memory_bytes
from vidxfer.pipeline.training.late import LATE, LateNumbers, StepNote
from vidxfer.pipeline.training.metrics import RunningMean


class Watch:
    """The numbers of one process's training.

    Args:
        processes: number of them.
        journal: where lines are written; None: not in this process.
        asked: whether this process was asked to stop.
        batch_clips: clips of a step over all processes.

    Attributes:
        loss: mean of the last logged steps.
        wait_seconds: spent waiting for data.
        train_seconds: of all steps.
    """

    def __init__(self, processes: int, journal: Journal | None, asked: Callable[[], bool], batch_clips: int) -> None:
        self.processes, self.journal, self.asked, self.batch_clips = processes, journal, asked, batch_clips
        self.loss, self.wait_seconds, self.train_seconds = 0.0, 0.0, 0.0
        self._late, self._mean = LateNumbers(), RunningMean()
        self._told_to_stop_at: int | None = None  # the step with which another process, or this one, said so

    @property
    def wait_share(self) -> float:
        """Share of the time so far that was spent waiting for data."""
        return min(1.0, self.wait_seconds / self.train_seconds) if self.train_seconds else 0.0

    def put(self, loss: Tensor, *, step: int, ids: Sequence[str], line: dict[str, Any] | None) -> None:
        """Take the loss of a step that was just handed over, and read the one before.

        Args:
            loss: on the device.
            step: its number, counted from 1.
            ids: the videos of the batch.
            line: from `line`; None: nothing is logged behind this step.

        Raises:
            RunError: the loss of the step before is no number.
        """
        self._late.put(self._shared(loss), StepNote(step=step, ids=tuple(ids[:3]), line=line))
        self.read()

    def _shared(self, loss: Tensor) -> Tensor:
        """What will be read: the loss; of several processes their mean, the share that asked to stop, the own loss."""
        own = loss.double()[None]
        if self.processes == 1:
            return own
        both = torch.cat([own, torch.full_like(own, float(self.asked()))])
        dist.all_reduce(both)  # the device waits for it, the host does not
        return torch.cat([both / self.processes, own])

    def read(self, *, leave: int = LATE) -> None:
        """Log all steps but the last `leave`. With 0 the device has done all of them, and a checkpoint may be written.

        Raises:
            RunError: a loss is no number; the first such step is named.
        """
        for note, numbers in self._late.read(leave=leave):
            loss, own = numbers[0], numbers[-1]
            if not math.isfinite(loss):
                ours = not math.isfinite(own)
                where = f"videos {', '.join(note.ids)} …" if ours else "in another process"
                raise RunError(
                    f"the loss is {own if ours else loss} at step {note.step} ({where}); "
                    "lower the rate (--set learning_rate=…) or use --precision fp32. The last checkpoint is kept."
                )
            self._mean.add(loss)
            if len(numbers) > 1 and numbers[1] and self._told_to_stop_at is None:
                self._told_to_stop_at = note.step
            if note.line is not None:
                self.loss = self._mean.take()
                if self.journal is not None:
                    self.journal.add(note.step, **{**note.line, "loss": self.loss})

    def read_all(self) -> None:
        """`read(leave=0)`; the time that the device still takes counts as training."""
        began = time.monotonic()
        self.read(leave=0)
        self.train_seconds += time.monotonic() - began

    def line(
        self, epoch: int, rate: float, waited: RunningMean, seconds: float, device: torch.device
    ) -> dict[str, Any]:
        """A line of metrics.jsonl, whose loss is not known yet.

        Args:
            epoch: counted from 1.
            rate: learning rate.
            waited: seconds that each step since the last line waited for data.
            seconds: that these steps took.
            device: whose memory is told.
        """
        steps = waited.count
        wait = waited.take() * steps
        self.wait_seconds += wait
        self.train_seconds += seconds
        return {
            "epoch": epoch,
            "loss": None,
            "learning_rate": rate,
            "data_wait_share": round(min(1.0, wait / seconds), 4) if seconds else 0.0,
            "clips_per_second": round(steps * self.batch_clips / seconds, 3) if seconds else 0.0,
            "peak_memory_bytes": peak_memory_bytes(device),
        }

    def stops_behind(self, step: int) -> bool:
        """Whether to end behind this step. All processes end behind the same one, the next after that which told it.

        What a process reads early, before it saves, therefore changes nothing.
        """
        if self.processes == 1:
            return self.asked()
        return self._told_to_stop_at is not None and step > self._told_to_stop_at

    def any_asked(self, device: torch.device) -> bool:
        """Whether any process was asked to stop. All processes wait here for each other, on their `device`."""
        asked = self._told_to_stop_at is not None or self.asked()
        if self.processes == 1:
            return asked
        told = torch.full((1,), float(asked), device=device)
        dist.all_reduce(told)
        return bool(told > 0)
