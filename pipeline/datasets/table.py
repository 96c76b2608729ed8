"""Rows out of a list file, each with the place it stands at, so that an error can name file and line.

    with header      path,label,start,end,split,id      columns in any order; only `path` is needed; , tab or ;
    without          path label      path,label         tab, comma, ;, :: or blank; the last field is the label
    frame folders    folder frames label                blanks; also: folder offset frames label
    names only       path                               every line one video, no labels
    parquet          columns as in a header

Consequence: a row is either understood whole or it stops the run with its line number; nothing is guessed per row.
Delimiter and header are decided once, on the first line.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.datasets.paths import is_video_name, read_text, split_of_word
from vidxfer.pipeline.errors import DatasetError, UsageError

COLUMNS = {
    "path": ("path", "file", "file_name", "filename", "filepath", "file_path", "video", "video_path", "videoloc"),
    "label": ("label", "class", "class_name", "label_name"),
    "start": ("start", "start_seconds", "start_s"),
    "end": ("end", "end_seconds", "end_s"),
    "split": ("split", "subset"),
    "id": ("id", "sample_id", "videoid"),
}
"""What a header may call each field, preferred spelling first. `start` and `end` are seconds."""

_PATHS = ", ".join(COLUMNS["path"])
_BLANK, _COLONS = " ", "::"
_FRAMES = re.compile(r"(?P<folder>.*\S)\s+(?P<frames>[0-9]+)\s+(?P<label>[0-9]+)")
_OFFSET = re.compile(r"(?P<folder>.*\S)\s+(?P<offset>[0-9]+)\s+(?P<frames>[0-9]+)\s+(?P<label>[0-9]+)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a list.

    Attributes:
        where: "folder/list.csv:17", to begin an error with.
        path: as written; undecodable bytes are surrogates.
        label: as written; None when empty or when there is no such column.
        start_seconds, end_seconds: the segment; None where not given.
        split: "train", "val" or "test"; None when there is no such column.
        id: as written; None when empty or when there is no such column.
        frames: of a frame folder, as listed: not trusted, but with an offset it says where the video ends.
        offset: number of pictures of the folder that come before the video; None: the folder is the video.
    """

    where: str
    path: str
    label: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    split: str | None = None
    id: str | None = None
    frames: int | None = None
    offset: int | None = None


def read_rows(file: Path, *, videos_only: bool = True) -> tuple[Row, ...]:
    """Every row of a list file.

    Args:
        file: the list.
        videos_only: without a header, a first field must end like a video; this is what tells `path label` lists from
            lists of frame folders and from several labels per line.

    Raises:
        DatasetError: the file or one of its rows is not of a form above; names file, line and what was expected.
    """
    if file.suffix.lower() == ".parquet":
        return tuple(_from_parquet(file))
    text = read_text(file)
    first = next(line for line in text.replace("\r", "\n").split("\n") if line.strip())
    for delimiter in (",", "\t", ";"):
        header = [cell.strip().lower() for cell in first.split(delimiter)]
        header = [cell.strip('"') for cell in header]
        if set(header) & set(COLUMNS["path"]):
            return tuple(_with_header(file, text, delimiter))
        if set(header) & {"label", "split"}:
            raise DatasetError(
                f"{file}:1: a header without a path column: {', '.join(map(repr, header))}. "
                f"Expected path,label[,start,end,split,id]; the path may be called {_PATHS}."
            )
    if first.split()[:2] == ["original_vido_id", "video_id"]:
        raise DatasetError(
            f"{file}:1: a list of single frames, as PySlowFast has them. List the folders instead: one line "
            "'folder frames label' per video."
        )
    if videos_only and _counts_frames(first):
        return tuple(_frame_folders(file, text))
    return tuple(_without_header(file, text, first, videos_only))


def _from_parquet(file: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow import parquet as reader
    except ImportError as error:
        raise UsageError(f"{file}: reading parquet needs pyarrow: pip install 'vidxfer[parquet]'") from error
    try:
        names = [str(name) for name in reader.read_schema(file).names]
        column = _columns(str(file), [name.lower() for name in names])
        table = reader.read_table(file, columns=[names[place] for place in column.values()]).to_pydict()
    except (ArrowInvalid, OSError) as error:
        raise DatasetError(f"{file}: cannot be read as parquet: {error}") from error
    if "path" not in column:
        raise DatasetError(f"{file}: no path column among {', '.join(names)}; it may be called {_PATHS}.")
    for number, values in enumerate(zip(*table.values(), strict=True), start=1):
        cells = {field: _cell(value) for field, value in zip(column, values, strict=True)}
        yield _row(f"{file}: row {number}", cells, has_split="split" in column)


def _cell(value: object) -> str:
    """A parquet value as a list would write it; null and NaN are empty."""
    return "" if value is None or value != value else str(value).strip()


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


def _with_header(file: Path, text: str, delimiter: str) -> Iterator[Row]:
    lines = _cells(file, text, delimiter)
    where, header = next(lines)
    header = [cell.lower() for cell in header]
    column = _columns(where, header)
    for where, cells in lines:
        if len(cells) != len(header):
            raise DatasetError(
                f"{where}: {len(cells)} fields, but the header has {len(header)} ({delimiter.join(header)}). "
                f"A field that holds {delimiter!r} must be quoted."
            )
        yield _row(where, {field: cells[place] for field, place in column.items()}, has_split="split" in column)


def _columns(where: str, header: list[str]) -> dict[str, int]:
    """Place of each field that a header names."""
    repeated = sorted({cell for cell in header if cell and header.count(cell) > 1})
    if repeated:
        raise DatasetError(f"{where}: the header names {', '.join(map(repr, repeated))} more than once")
    return {
        field: next(header.index(word) for word in words if word in header)
        for field, words in COLUMNS.items()
        if any(word in header for word in words)
    }


def _row(where: str, fields: dict[str, str], *, has_split: bool) -> Row:
    if not fields["path"]:
        raise DatasetError(f"{where}: the path is empty")
    start = _seconds(where, "start", fields.get("start"))
    end = _seconds(where, "end", fields.get("end"))
    if end is not None and end <= (start or 0.0):
        raise DatasetError(
            f"{where}: the segment ends at {end:g} s, which is not after its start at {start or 0.0:g} s"
        )
    split = split_of_word(fields["split"]) if has_split else None
    if has_split and split is None:
        raise DatasetError(f"{where}: split is {fields['split']!r}, expected train, val or test")
    return Row(
        where=where,
        path=fields["path"],
        label=fields.get("label") or None,
        start_seconds=start,
        end_seconds=end,
        split=split,
        id=fields.get("id") or None,
    )


def _seconds(where: str, name: str, text: str | None) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise DatasetError(f"{where}: {name} is {text!r}, expected seconds such as 12.5")
    return seconds


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
        yield Row(where=where, path=cells[0], label=None if names_only else cells[1])


def _counts_frames(line: str) -> bool:
    """Whether a line is `folder frames label`: the name of a video never stands before its numbers."""
    found = _FRAMES.fullmatch(line.strip())
    return found is not None and not any(is_video_name(word) for word in found["folder"].split())


def _frame_folders(file: Path, text: str) -> Iterator[Row]:
    """Rows of frame folders; all lines have an offset, or none has."""
    lines = list(_lines(file, text))
    has_offset = all(_OFFSET.fullmatch(line) for _, line in lines)
    for where, line in lines:
        found = (_OFFSET if has_offset else _FRAMES).fullmatch(line)
        if found is None or (not has_offset and _OFFSET.fullmatch(line)):
            raise DatasetError(
                f"{where}: {line[:80]!r} does not fit the other lines, which are 'folder frames label'. "
                "Several labels per video are not read."
            )
        offset = int(found["offset"]) if has_offset else None
        yield Row(where=where, path=found["folder"], label=found["label"], frames=int(found["frames"]), offset=offset)


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
