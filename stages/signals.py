"""Signals that ask a long stage to stop in good order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
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
