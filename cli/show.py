"""How results look: bars, tables, numbers with units; JSON for programs.

Bars and notes go to standard error, results to standard output. Where standard error is no terminal, a bar becomes a
plain line every ten seconds, so that a log file stays readable.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_SECONDS = 10.0
_NARROW = 116


def console(stderr: bool = False) -> Console:
    """A console; wide enough for tables where the output is no terminal."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=max(_NARROW, made.width))


def print_json(report: Any) -> None:
    """A report as JSON on standard output."""
    text = json.dumps(_plain(report), indent=1, ensure_ascii=False)
    print(text.encode("utf-8", "backslashreplace").decode())  # a path that is not UTF-8 as JSON escapes it


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def say_aspects(split: str, found: dict[str, int]) -> None:
    """One line where pixels are not square in some videos: aspect, width to height -> videos."""
    if found:
        shown = ", ".join(f"{aspect} in {count:,}" for aspect, count in sorted(found.items()))
        print(f"note: {split}: pixels are not square: {shown}. Without --square-pixels pictures are taken as stored.")


def size(number: float) -> str:
    """Bytes with a unit, three digits: 29.1 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 999.5 or unit == "TB":
            return f"{number:.3g} {unit}" if unit != "B" else f"{number:.0f} B"
        number /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """Seconds as a person says them: 4.2 s, 3 min 5 s, 7 h 12 min."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output; all columns but the first are right-aligned."""
    drawn = Table(title=title, title_justify="left", header_style="bold")
    for number, name in enumerate(columns):
        drawn.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console().print(drawn)


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, done: int = 1, note: str | None = None) -> None:
        if note is not None:
            self._progress.update(self._task, note=note)
        self._progress.advance(self._task, done)


class _PlainBar:
    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self._title, self._total, self._unit, self._done, self._note = title, total, unit, done, ""
        self._began, self._first = time.monotonic(), done
        self._said = self._began

    def advance(self, done: int = 1, note: str | None = None) -> None:
        self._done += done
        self._note = self._note if note is None else note
        if time.monotonic() - self._said >= PLAIN_SECONDS:
            self.say()

    def say(self) -> None:
        """The state as one line."""
        self._said = time.monotonic()
        rate = (self._done - self._first) / max(1e-9, self._said - self._began)
        left = f", {duration((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        note = f"; {self._note}" if self._note else ""
        print(
            f"{self._title}: {self._done}/{self._total} {self._unit}, {rate:.3g} {self._unit}/s{left}{note}",
            file=sys.stderr,
            flush=True,
        )


class Shown:
    """The command line's `Progress`."""

    def __init__(self) -> None:
        self._console = console(stderr=True)

    @contextmanager
    def bar(self, title: str, total: int, unit: str, done: int = 0) -> Iterator[_RichBar | _PlainBar]:
        """A moving bar on a terminal, plain lines elsewhere."""
        if not self._console.is_terminal:
            plain = _PlainBar(title, total, unit, done)
            yield plain
            plain.say()
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=self._console,
        ) as progress:
            yield _RichBar(progress, progress.add_task(title, total=total, completed=done, note=""))

    def line(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False)


def facts(title: str, rows: list[list[str]]) -> None:
    """Names and values, one below the other, on standard output."""
    drawn = Table(title=title, title_justify="left", show_header=False)
    drawn.add_column(style="bold")
    drawn.add_column(overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console().print(drawn)
