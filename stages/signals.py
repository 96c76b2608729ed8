"""Signals that ask a long stage to stop in good order.

Ctrl-C            ─▶ every process of the terminal ─┬─▶ the one that leads: ends what it started, then itself
SIGUSR1 of Slurm  ─▶ every process of the job      ─┴─▶ its workers: deaf to it, else they die of it with a traceback
SIGTERM, SIGUSR1  ─▶ training: a checkpoint after this step; other commands: as Ctrl-C. Exit code 75: the same again
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

STOPPED = 75
"""Exit code of a command that a signal stopped in good order: run the same command again (sysexits.h: EX_TEMPFAIL)."""

REQUESTS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask for a stop from outside; Slurm sends SIGUSR1 some time before a job's end (--signal=USR1@60)."""


class Stop:
    """Which signal asked for a stop, if one did."""

    asked: str | None = None

    def is_asked(self) -> bool:
        """Whether one did."""
        return self.asked is not None


class Ended(SystemExit):
    """A signal ended a command that has no better moment to stop at; what is finished is kept.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(STOPPED)
        self.name = signal.Signals(number).name


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """`REQUESTS` and SIGINT ask for a stop after the current step; a second SIGTERM or SIGINT ends at once, as usual.

    SIGUSR1 may come more than once: a batch system sends it to every process of a job, and so may whoever started it.
    """
    stop = Stop()

    def ask(number: int, _: object) -> None:
        stop.asked = signal.Signals(number).name
        if number != signal.SIGUSR1:
            signal.signal(number, before[number])

    with _handled((*REQUESTS, signal.SIGINT), ask) as before:
        yield stop


@contextmanager
def exit_on_request() -> Iterator[None]:
    """`REQUESTS` end the process as Ctrl-C does, through every `finally`: what was started elsewhere is ended too."""

    def leave(number: int, _: object) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # while things end
        raise Ended(number)

    with _handled(REQUESTS, leave):
        yield


@contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Any) -> Iterator[dict[int, Any]]:
    """The signals are handled so inside of the block; yields what handled each before."""
    before: dict[int, Any] = {}
    try:
        for number in numbers:
            before[number] = signal.getsignal(number)
            signal.signal(number, handler)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield {}
        return
    try:
        yield before
    finally:
        for handled, earlier in before.items():
            signal.signal(handled, signal.SIG_DFL if earlier is None else earlier)  # None: not set from Python


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C and SIGUSR1 wait until the end of the block; threads and processes that begin in it never get them.

    A cluster that is interrupted while it starts cannot be closed any more. Blocking the signal in this thread is for
    those that begin in the block; threads that were there before still get it, so it is only noted until the end.
    """
    came: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    resource_tracker.ensure_running()  # where a process is spawned without it, it starts there and lets SIGINT through
    ours = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if ours else None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # what waited is noted here
        if ours:
            signal.signal(signal.SIGINT, handler)
    if came:
        signal.raise_signal(signal.SIGINT)


def dask_setup(_: object) -> None:
    """What dask runs in a worker whose `preload` names this module: from now on the leading process alone ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
