"""Work in a second thread: in the order in which it was handed over, one piece at a time, with a bounded queue.

    CLIP    do(add row 0)  do(add row 1) …  do(finish)  next shard …
    disk        add row 0      add row 1 …      finish: index, fsync, rename ─▶ its Future

Writing waits for the disk, and CLIP waits for its device. Side by side they take as long as the slower of the two. The
bytes that wait are bounded. After an error no more work is done. The next `do`, or the end of the block, raises it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

WAITING_BYTES_MOST = 32 << 20
"""Handed over and not done; one piece of work may hold more, and is then alone."""

Result = TypeVar("Result")


class Behind:
    """One thread that does what it is given, in order; to be used in a `with` block.

    Args:
        waiting_bytes_most: how much memory may wait before `do` waits too.
    """

    def __init__(self, waiting_bytes_most: int = WAITING_BYTES_MOST) -> None:
        self._most = waiting_bytes_most
        self._given: deque[tuple[int, Future[Any]]] = deque()
        self._given_bytes = 0
        self._last: Future[Any] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until all is done; after an error in the block, until the piece under way is, and drop the rest."""
        try:
            if kind is None:
                self._settle(0, all_of_it=True)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def do(self, work: Callable[[], Result], size_bytes: int = 0) -> Future[Result]:
        """Hand over a piece of work that holds `size_bytes` of memory; waits while too much is waiting.

        Raises:
            Whatever an earlier piece of work raised.
        """
        self._settle(size_bytes)
        future = self._pool.submit(_after, self._last, work)
        self._given.append((size_bytes, future))
        self._given_bytes += size_bytes
        self._last = future
        return future

    def _settle(self, coming_bytes: int, *, all_of_it: bool = False) -> None:
        """Take note of what is done, and wait for more of it where there is no room for what comes."""
        while self._given:
            size_bytes, future = self._given[0]
            full = self._given_bytes + coming_bytes > self._most
            if not (full or all_of_it or future.done()):
                return
            future.result()
            self._given.popleft()
            self._given_bytes -= size_bytes


def _after(earlier: Future[Any] | None, work: Callable[[], Result]) -> Result:
    """Do the work, unless what came before it failed: then that error again."""
    if earlier is not None:
        earlier.result()
    return work()
