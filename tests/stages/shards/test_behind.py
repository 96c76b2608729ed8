"""Work behind a caller: in order, bounded, and an error stops both."""

from __future__ import annotations

import threading
import time

import pytest

from vidxfer.pipeline.errors import CacheFull
from vidxfer.stages.shards.behind import Behind


def test_work_is_done_in_order_and_is_all_done_at_the_end() -> None:
    done: list[int] = []
    with Behind() as behind:
        futures = [behind.do(lambda i=i: done.append(i) or i * i) for i in range(50)]
    assert done == list(range(50))
    assert [future.result() for future in futures] == [i * i for i in range(50)]


def test_the_caller_goes_on_while_the_work_waits() -> None:
    gate, reached = threading.Event(), []
    with Behind() as behind:
        behind.do(lambda: gate.wait(10))
        reached.append("went on")
        gate.set()
    assert reached == ["went on"]


@pytest.mark.parametrize(("size_bytes", "most_waiting"), [(1, 3), (2, 1), (3, 1), (9, 1)])
def test_no_more_waits_than_may(size_bytes: int, most_waiting: int) -> None:
    lock, held, most = threading.Lock(), [0], [0]

    def work() -> None:
        time.sleep(0.002)
        with lock:
            held[0] -= 1

    with Behind(waiting_bytes_most=3) as behind:
        for _ in range(20):
            behind.do(work, size_bytes)
            with lock:
                held[0] += 1
                most[0] = max(most[0], held[0])
    assert most[0] <= most_waiting


def test_an_error_ends_the_work_and_reaches_who_hands_over_next() -> None:
    done: list[str] = []

    def full() -> None:
        raise CacheFull("the disk is full")

    def run() -> None:
        with Behind() as behind:
            failed = behind.do(full)
            later = behind.do(lambda: done.append("later"))
            assert isinstance(failed.exception(10), CacheFull)
            assert isinstance(later.exception(10), CacheFull)
            behind.do(lambda: done.append("never"))
            pytest.fail("the error was not raised")

    with pytest.raises(CacheFull, match="the disk is full"):
        run()
    assert done == []


def test_an_error_at_the_very_end_is_raised_by_leaving_the_block() -> None:
    gate = threading.Event()

    def full() -> None:
        gate.wait(10)
        raise CacheFull("the disk is full")

    def run() -> None:
        with Behind() as behind:
            behind.do(full)
            gate.set()

    with pytest.raises(CacheFull):
        run()


def test_an_error_in_the_block_drops_what_waits_and_lets_the_piece_under_way_end() -> None:
    started, gate, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        started.set()
        gate.wait(10)
        done.append("under way")

    def run() -> None:
        with Behind() as behind:
            behind.do(slow)
            behind.do(lambda: done.append("waiting"))
            started.wait(10)
            threading.Timer(0.05, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert done == ["under way"]
    assert "behind" not in {thread.name.rpartition("_")[0] for thread in threading.enumerate()}
