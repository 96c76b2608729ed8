"""Batches made ahead of their use, in threads of the trainer's own process.

    plan [(row, view), …] per step ─▶ one thread: batch k + 1, k + 2 … ─▶ decode threads ─▶ RawBatch k, in order

No worker processes, no copies between them. What a batch consists of is the subclass's matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from vidxfer.pipeline.cache.read.batch import Codes
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.video.replay import CutFrames

AHEAD = 2
"""Batches under way while one is used; one more buffer than that is kept, since the used one is still being read."""

Plan = Sequence[Sequence[tuple[int, int]]]
"""Per step, the (row, view) of every clip."""


@dataclass(frozen=True, kw_only=True)
class RawBatch:
    """One batch as a loader delivers it, on the CPU; `codes` lives in a buffer that a later batch reuses.

    Attributes:
        codes: cached tokens; None on the online path.
        embedding: [clip frame embed].
        dense: [clip dense rgb height width], normalised, or what is still to be finished on the device.
        labels: int64 [clip], swapped where a view is mirrored.
        rows: row of the split of every clip.
        ids: of the videos.
    """

    codes: Codes | None
    embedding: Tensor | None
    dense: Tensor | CutFrames | None
    labels: Tensor
    rows: tuple[int, ...]
    ids: tuple[str, ...]


class AheadLoader(ABC):
    """Runs `load` ahead of use; a context manager that ends its threads.

    Attributes:
        split: what the rows of a plan mean.
        refused: id -> reason of videos that could not be read on the way.
        epoch: (seed, epoch) of the draws made anew in every epoch; None: nothing is random.
    """

    def __init__(self, split: Split, *, decode_threads: int) -> None:
        self.split = split
        self.refused: dict[str, str] = {}
        self.epoch: tuple[int, int] | None = None
        self._decode = ThreadPoolExecutor(max(1, decode_threads), thread_name_prefix="decode")
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="batch")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ahead.shutdown(cancel_futures=True)
        self._decode.shutdown(cancel_futures=True)

    def batches(self, plan: Plan) -> Generator[RawBatch]:
        """Batches in the order of `plan`. A batch's `codes` are valid until the next one is taken."""
        self.prepare(plan)
        waiting: deque[Future[RawBatch]] = deque()
        try:
            for clips in plan:
                waiting.append(self._ahead.submit(self.load, clips))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def prepare(self, plan: Plan) -> None:  # noqa: B027  # optional: only the cached loader has buffers to make
        """Called before the first batch of a plan."""

    @abstractmethod
    def load(self, clips: Sequence[tuple[int, int]]) -> RawBatch:
        """Make one batch of (row, view); runs in the thread that works ahead."""

    def label_of(self, row: int, flipped: bool) -> int:
        """The row's label, or its mirror class where the view is mirrored and the names say there is one."""
        label = int(self.split.labels[row])
        return self.split.flip_pairs.get(label, label) if flipped else label
