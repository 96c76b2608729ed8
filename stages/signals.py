"""Signals that ask a long stage to stop in good order.

Ctrl-C ─▶ every process of the terminal ─┬─▶ the one that leads: ends what it started, then itself
                                         └─▶ its workers: deaf to it, else they die of it with a traceback each
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any


class Stop:
    """Which signal asked for a stop, if one did."""

    asked: str | None = None


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """SIGTERM and SIGINT ask for a stop after the current step; a second one ends at once, as usual."""
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, _: object) -> None:
        stop.asked = signal.Signals(number).name
        signal.signal(number, before[number])

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.getsignal(number)
        try:
            signal.signal(number, ask)
        except ValueError:  # not the main thread: whoever runs us there handles signals
            break
    try:
        yield stop
    finally:
        for asked, handler in before.items():
            if signal.getsignal(asked) is ask:
                signal.signal(asked, handler)


@contextmanager
def exit_on_term() -> Iterator[None]:
    """SIGTERM ends the process as Ctrl-C does, through every `finally`: what was started elsewhere is ended too."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; threads and processes that begin in it, and theirs, never get it.

    A cluster that is interrupted while it starts cannot be closed any more. Blocking the signal in this thread is for
    those that begin in the block; threads that were there before still get it, so it is only noted until the end.
    """
    came: list[int] = []
    resource_tracker.ensure_running()  # where a process is spawned without it, it starts there and lets SIGINT through
    ours = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if ours else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # what waited is noted here
        if ours:
            signal.signal(signal.SIGINT, handler)
    if came:
        signal.raise_signal(signal.SIGINT)


def dask_setup(_: object) -> None:
    """What dask runs in a worker whose `preload` names this module: from now on none of its threads gets Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
