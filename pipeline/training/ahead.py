"""Prefetching of batches, in threads of the trainer's own process.

    plan [(row, view), …] per step ─▶ one thread: batch k + 1, k + 2 … ─▶ decode threads ─▶ RawBatch k, in order

There are no worker processes, and so no copies between processes. The subclass defines what a batch holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from vidxfer.pipeline.cache.read.batch import Codes
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.training.upload import pinned
from vidxfer.pipeline.video.replay import CutFrames

AHEAD = 2
"""Batches that are prepared while one is used. There is one buffer more, because the used batch still needs its own."""

Plan = Sequence[Sequence[tuple[int, int]]]
"""Per step, the (row, view) of every clip."""


@dataclass(frozen=True, kw_only=True)
class RawBatch:
    """One batch as a loader delivers it, on the CPU. A later batch reuses the buffer of `codes`.

    Attributes:
        codes: cached tokens; None on the online path.
        embedding: [clip frame embed].
        dense: [clip dense rgb height width], normalised; or frames that the device still has to finish.
        labels: int64 [clip]. The label of a mirrored view is that of its mirror class.
        rows: each clip's row in the split.
        ids: ids of the videos.
        kept: int64 [clip frame], which of the decoded frames the head sees; None: all.
    """

    codes: Codes | None
    embedding: Tensor | None
    dense: Tensor | CutFrames | None
    labels: Tensor
    rows: tuple[int, ...]
    ids: tuple[str, ...]
    kept: Tensor | None = None

    def pinned(self) -> Self:
        """The same batch, from which a CUDA device can copy while the host goes on; codes are read that way already."""
        dense = self.dense
        if isinstance(dense, CutFrames):
            dense = replace(dense, pixels=pinned(dense.pixels))
        elif dense is not None:
            dense = pinned(dense)
        embedding = None if self.embedding is None else pinned(self.embedding)
        return replace(self, embedding=embedding, dense=dense, labels=pinned(self.labels))


class AheadLoader(ABC):
    """Runs `load` ahead of use. It is a context manager, which ends its threads.

    Attributes:
        split: the split that the rows of a plan belong to.
        refused: id -> reason, of videos that could not be read during loading.
        epoch: (seed, epoch) of the random draws of this epoch; None: nothing is random.
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
        """Batches in the order of `plan`.

        A batch's `codes` are valid until the next batch is taken. A device may still copy them until the one behind
        that is taken: by then a trainer has waited for their step (training/late.py).
        """
        self.prepare(plan)
        waiting: deque[Future[RawBatch]] = deque()
        try:
            for clips in plan:
                waiting.append(self._ahead.submit(self._loaded, clips))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _loaded(self, clips: Sequence[tuple[int, int]]) -> RawBatch:
        return self.load(clips).pinned()

    def prepare(self, plan: Plan) -> None:  # noqa: B027  # optional: only the cached loader has buffers to make
        """Called before the first batch of a plan."""

    @abstractmethod
    def load(self, clips: Sequence[tuple[int, int]]) -> RawBatch:
        """Make one batch of (row, view). Runs in the prefetching thread."""

    def label_of(self, row: int, flipped: bool) -> int:
        """The row's label; for a mirrored view its mirror class, if the class names define one."""
        label = int(self.split.labels[row])
        return self.split.flip_pairs.get(label, label) if flipped else label
