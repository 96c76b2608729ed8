"""How results look: bars, tables, numbers with units; JSON for programs. All that reaches a terminal goes through here.

    ids, paths, class names, messages of other programs ─▶ harmless ─▶ say, complain, tables, facts, Shown
                                              in reports ─▶ print_json: the exact data, spelled with \\u escapes

A terminal obeys what is printed: a class name may clear the screen, colour it, set its title, or turn the direction of
reading. `harmless` writes out every character that is not visible, and rich never looks for its markup in data.

Bars and notes go to standard error, results to standard output. Where standard error is no terminal, a bar becomes a
plain line every ten seconds, so that a log file stays readable.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vidxfer.pipeline.visible import count as count
from vidxfer.pipeline.visible import duration as duration
from vidxfer.pipeline.visible import harmless as harmless
from vidxfer.pipeline.visible import size as size
from vidxfer.pipeline.visible import spelled

PLAIN_SECONDS = 10.0
_NARROW = 116
_CELL_CHARACTERS, _BAR_CHARACTERS = 300, 60
_MOST_WIDTH, _BORDER = 28, 3


def say(*lines: object, stream: TextIO | None = None) -> None:
    """Lines on standard output; a line break inside one is spelled out, so that data cannot add a line."""
    for line in lines:
        print(harmless(line), file=stream or sys.stdout, flush=stream is not None)


def complain(text: str) -> None:
    """A message on standard error, which may have several lines."""
    say(*text.split("\n"), stream=sys.stderr)


def take_over() -> None:
    """What Python itself says on standard error, of data as it came, goes through here too."""
    sys.excepthook = _unforeseen
    warnings.showwarning = _warned
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Logged())


def _unforeseen(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    complain("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    complain(warnings.formatwarning(message, category, filename, lineno, line).rstrip("\n"))


class _Logged(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))


def console(stderr: bool = False) -> Console:
    """A console; wide enough for tables where the output is no terminal."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=max(_NARROW, made.width))


def print_json(report: Any) -> None:
    """A report as JSON on standard output: the exact data, with JSON's escapes for what is no visible character."""
    text = json.dumps(_plain(report), indent=1, ensure_ascii=False)
    say(*(spelled(line, lambda character: json.dumps(character)[1:-1]) for line in text.split("\n")))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def say_aspects(split: str, aspects: dict[str, int]) -> None:
    """One line where pixels are not square in some videos: aspect, width to height -> videos."""
    if aspects:
        shown = ", ".join(f"{aspect} in {count:,}" for aspect, count in sorted(aspects.items()))
        say(f"note: {split}: pixels are not square: {shown}. Without --square-pixels pictures are taken as stored.")


def table(title: str, columns: list[str], rows: list[list[str]], widths: Sequence[int | None] | None = None) -> None:
    """A table on standard output; all columns but the first are right-aligned, and those without a width give way."""
    drawn = Table(title=_title(title), title_justify="left", header_style="bold")
    for number, name in enumerate(columns):
        width = None if widths is None else widths[number]
        drawn.add_column(_cell(name), justify="left" if number == 0 else "right", overflow="fold", width=width)
    _draw(drawn, rows)


def folded(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """As `table`; columns that do not fit beside each other go into further tables, each with the first column."""
    cells = [[harmless(cell, _CELL_CHARACTERS) for cell in column] for column in zip(*rows, strict=True)]
    widths = [
        min(_MOST_WIDTH, max(map(cell_len, [*name.split(), *column])))
        for name, column in zip(columns, cells, strict=True)
    ]
    first, room, tables = widths[0] + _BORDER + 1, console().width, [[0]]
    for number, width in list(enumerate(widths))[1:]:
        taken = first + sum(widths[place] + _BORDER for place in tables[-1][1:])
        if len(tables[-1]) > 1 and taken + width + _BORDER > room:
            tables.append([0])
        tables[-1].append(number)
    for part in tables:
        shown = [[row[number] for number in part] for row in (columns, *rows)]
        whole = [max(widths[number], cell_len(columns[number])) for number in part]  # no name of a column broken
        narrow = [widths[number] for number in part]
        fits = sum(whole) + _BORDER * len(part) + 1 <= room
        table(title if part is tables[0] else "", shown[0], shown[1:], whole if fits else narrow)


def facts(title: str, rows: list[list[str]]) -> None:
    """Names and values, one below the other, on standard output."""
    drawn = Table(title=_title(title), title_justify="left", show_header=False)
    drawn.add_column(style="bold")
    drawn.add_column(overflow="fold")
    _draw(drawn, rows)


def _draw(drawn: Table, rows: list[list[str]]) -> None:
    for row in rows:
        drawn.add_row(*map(_cell, row))
    console().print(drawn)


def _cell(text: object) -> Text:
    """Data for rich: as `Text` it is never searched for markup or emoji codes."""
    return Text(harmless(text, _CELL_CHARACTERS))


def _title(text: str) -> Text | None:
    return Text(harmless(text, _CELL_CHARACTERS), style="table.title") if text else None


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, done: int = 1, note: str | None = None) -> None:
        if note is not None:
            self._progress.update(self._task, note=harmless(note, _BAR_CHARACTERS))
        self._progress.advance(self._task, done)


class _PlainBar:
    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self._title, self._total, self._unit, self._done, self._note = harmless(title), total, unit, done, ""
        self._began, self._first = time.monotonic(), done
        self._said = self._began

    def advance(self, done: int = 1, note: str | None = None) -> None:
        self._done += done
        self._note = self._note if note is None else harmless(note, _BAR_CHARACTERS)
        if time.monotonic() - self._said >= PLAIN_SECONDS:
            self.say()

    def say(self) -> None:
        """The state as one line."""
        self._said = time.monotonic()
        rate = (self._done - self._first) / max(1e-9, self._said - self._began)
        left = f", {duration((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        note = f"; {self._note}" if self._note else ""
        complain(f"{self._title}: {self._done}/{self._total} {self._unit}, {rate:.3g} {self._unit}/s{left}{note}")


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
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self._console,
        ) as progress:
            description = harmless(title, _BAR_CHARACTERS)
            yield _RichBar(progress, progress.add_task(description, total=total, completed=done, note="", unit=unit))

    def line(self, text: str) -> None:
        """A line above the bar, or a few."""
        self._console.print(Text("\n".join(map(harmless, text.split("\n")))))
