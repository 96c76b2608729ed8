"""Ctrl-C while a cluster starts waits for its end, whichever thread the system gives it to."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from vidxfer.stages.signals import interrupts_held


def interrupted_within(ends: list[bool]) -> None:
    """Send this process a Ctrl-C within the block; note that the block went on to its end."""
    with interrupts_held():
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass  # a handler would have run between two of these
        ends.append(True)


@pytest.mark.parametrize("others", [0, 3])
def test_an_interrupt_in_the_block_is_raised_behind_it(others: int) -> None:
    over, ends = threading.Event(), list[bool]()
    for _ in range(others):
        threading.Thread(target=over.wait, daemon=True).start()  # none of them blocks the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted_within(ends)
    finally:
        over.set()
    assert ends == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_without_an_interrupt_nothing_is_raised() -> None:
    with interrupts_held():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
