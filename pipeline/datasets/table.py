"""Rows out of a list file, each with the place it stands at, so that an error can name file and line.

    with header      path,label,start,end,split,id      columns in any order; only `path` is needed; , tab or ;
    without          path label      path,label         tab, comma, ;, :: or blank; the last field is the label
    frame folders    folder frames label                blanks; also: folder offset frames label
    names only       path                               every line one video, no labels
    parquet, json    columns as in a header (records.py)

Consequence: a row is either understood whole or it stops the run with its line number; nothing is guessed per row.
Delimiter and header are decided once, on the first line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from vidxfer.pipeline.datasets.columns import PATHS, Row, is_header, rows_of
from vidxfer.pipeline.datasets.paths import is_video_name, read_text
from vidxfer.pipeline.datasets.records import RECORD_FILES, read_records
from vidxfer.pipeline.errors import DatasetError

_BLANK, _COLONS = " ", "::"
_FRAMES = re.compile(r"(?P<folder>.*\S)\s+(?P<frames>[0-9]+)\s+(?P<label>[0-9]+)")
_OFFSET = re.compile(r"(?P<folder>.*\S)\s+(?P<offset>[0-9]+)\s+(?P<frames>[0-9]+)\s+(?P<label>[0-9]+)")


def read_rows(file: Path, notes: list[str], *, videos_only: bool = True) -> tuple[Row, ...]:
    """Every row of a list file.

    Args:
        file: the list.
        notes: what a person should know about the list is added here.
        videos_only: without a header, a first field must end like a video; this is what tells `path label` lists from
            lists of frame folders and from several labels per line.

    Raises:
        DatasetError: the file or one of its rows is not of a form above; names file, line and what was expected.
    """
    if file.suffix.lower() in RECORD_FILES:
        records = list(read_records(file))
        header = list(dict.fromkeys(name for _, cells in records for name in cells))
        return rows_of(f"{file}", header, records, notes)
    text = read_text(file)
    first = next(line for line in text.replace("\r", "\n").split("\n") if line.strip())
    for delimiter in (",", "\t", ";"):
        header = [cell.strip().strip('"') for cell in first.split(delimiter)]
        if is_header(header):
            return _with_header(file, text, delimiter, notes)
        if {cell.lower() for cell in header} & {"label", "split"}:
            raise DatasetError(
                f"{file}:1: a header without a path column: {', '.join(map(repr, header))}. "
                f"Expected path,label[,start,end,split,id]; the path may be called {', '.join(PATHS)}."
            )
    if first.split()[:2] == ["original_vido_id", "video_id"]:
        raise DatasetError(
            f"{file}:1: a list of single frames, as PySlowFast has them. List the folders instead: one line "
            "'folder frames label' per video."
        )
    if videos_only and _counts_frames(first):
        return tuple(_frame_folders(file, text))
    return tuple(_without_header(file, text, first, videos_only))


def _cells(file: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of every line that is not blank; quotes are respected unless the delimiter is a blank or ::."""
    if delimiter in (_BLANK, _COLONS):
        for where, line in _lines(file, text):
            yield where, [cell.strip() for cell in line.rsplit(None if delimiter == _BLANK else _COLONS, 1)]
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins_at = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield f"{file}:{begins_at}", [cell.strip() for cell in cells]
            begins_at = reader.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"{file}:{begins_at}: {error}; is a quote left open?") from error


def _lines(file: Path, text: str) -> Iterator[tuple[str, str]]:
    """Place and text of every line that is not blank."""
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if line.strip():
            yield f"{file}:{number}", line.strip()


def _with_header(file: Path, text: str, delimiter: str, notes: list[str]) -> tuple[Row, ...]:
    lines = _cells(file, text, delimiter)
    where, header = next(lines)
    records = []
    for place, cells in lines:
        if len(cells) != len(header):
            raise DatasetError(
                f"{place}: {len(cells)} fields, but the header has {len(header)} ({delimiter.join(header)}). "
                f"A field that holds {delimiter!r} must be quoted."
            )
        records.append((place, dict(zip(header, cells, strict=True))))
    return rows_of(where, header, records, notes)


def _without_header(file: Path, text: str, first: str, videos_only: bool) -> Iterator[Row]:
    delimiter = _delimiter_without_header(first, videos_only)
    names_only = None
    for where, cells in _cells(file, text, delimiter):
        if names_only is None:
            names_only = len(cells) == 1 and videos_only
        expected = "path" if names_only else f"path{delimiter}label"
        if len(cells) != (1 if names_only else 2) or not all(cells):
            raise DatasetError(
                f"{where}: {len(cells)} fields, expected {expected!r}; quote a field that holds {delimiter!r}"
            )
        if videos_only and not is_video_name(cells[0]):
            raise DatasetError(
                f"{where}: {cells[0]!r} does not end like a video (.mp4, .webm, …). Expected {expected!r} with one "
                "label per line; a header line path,label[,start,end,split,id]; or 'folder frames label'."
            )
        yield Row(where=where, path=cells[0], label=None if names_only else cells[1], cells=tuple(cells))


def _counts_frames(line: str) -> bool:
    """Whether a line is `folder frames label`: the name of a video never stands before its numbers."""
    match = _FRAMES.fullmatch(line.strip())
    return match is not None and not any(is_video_name(word) for word in match["folder"].split())


def _frame_folders(file: Path, text: str) -> Iterator[Row]:
    """Rows of frame folders; all lines have an offset, or none has."""
    lines = list(_lines(file, text))
    has_offset = all(_OFFSET.fullmatch(line) for _, line in lines)
    for where, line in lines:
        match = (_OFFSET if has_offset else _FRAMES).fullmatch(line)
        if match is None or (not has_offset and _OFFSET.fullmatch(line)):
            raise DatasetError(
                f"{where}: {line[:80]!r} does not fit the other lines, which are 'folder frames label'. "
                "Several labels per video are not read."
            )
        offset = int(match["offset"]) if has_offset else None
        yield Row(
            where=where, path=match["folder"], label=match["label"], frames=int(match["frames"]), offset=offset,
            cells=(line,),
        )  # fmt: skip


def _delimiter_without_header(first: str, videos_only: bool) -> str:
    head, colons, _ = first.partition(_COLONS)
    if colons and (not videos_only or is_video_name(head.strip())):
        return _COLONS
    for delimiter in ("\t", ",", ";"):
        try:
            cells = next(csv.reader([first], delimiter=delimiter, strict=True))
        except csv.Error:
            continue
        if len(cells) > 1 and (not videos_only or is_video_name(cells[0].strip())):
            return delimiter
    return _BLANK
