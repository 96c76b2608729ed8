"""What a stage tells about long work, without knowing who shows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One bar of known length."""

    def advance(self, done: int = 1, note: str | None = None) -> None:
        """`done` more units; `note` replaces the text at the end of the bar."""


class Progress(Protocol):
    """Shows bars and lines; the command line has one, tests use `Silent`."""

    def bar(self, title: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Bar]:
        """A bar that is shown while its context lasts."""

    def line(self, text: str) -> None:
        """One line a person should read."""


def say(shown: Progress, text: str | None) -> None:
    """Show a line where there is one."""
    if text is not None:
        shown.line(text)


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """A library that logs what it does keeps to warnings while the block lasts.

    Args:
        logger: its name.
    """
    quieted = logging.getLogger(logger)
    before = quieted.level
    quieted.setLevel(logging.WARNING)
    try:
        yield
    finally:
        quieted.setLevel(before)


class _NoBar:
    def advance(self, done: int = 1, note: str | None = None) -> None:
        """Nothing is shown."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def bar(self, title: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
        """A bar nobody sees."""
        yield _NoBar()

    def line(self, text: str) -> None:
        """Nothing is shown."""


class Lines(Silent):
    """Hands every line to a function, such as `print`; bars are not shown.

    Args:
        tell: is given one line at a time. Class names and paths in it are as the data set has them.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell

    def line(self, text: str) -> None:
        """The line goes to the function."""
        self._tell(text)
