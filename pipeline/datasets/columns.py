"""What the columns of a list mean: from a header and its cells to rows, and a word about every column left unread.

    video_path,label,label_name,start_time,end_time,note     ──▶  path, class by its name, segment; note: unread, said
    path,class_id,class_name                                 ──▶  the name is the class; its number must agree

Consequence: nothing a row says is dropped in silence. Columns that may cut a video are read or refused (segments.py),
names are preferred to numbers, every other column is named in a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidxfer.pipeline.datasets.paths import clean_text, split_of_word
from vidxfer.pipeline.datasets.records import Record
from vidxfer.pipeline.datasets.segments import WHOLE, Segment, SegmentColumns, check_unread, segment_columns
from vidxfer.pipeline.errors import DatasetError

PATHS = ("path", "file", "file_name", "filename", "filepath", "file_path", "video", "video_path", "videoloc",
         "video_file", "video_filename", "video_name", "clip_path", "relative_path", "clip", "video_id")  # fmt: skip
LABELS = ("label", "class", "class_name", "label_name", "target", "category", "action", "gesture", "activity",
          "label_text", "text_label", "class_label", "category_name", "action_name", "activity_name", "classname",
          "labelname", "class_text")  # fmt: skip
NUMBERS = ("label_id", "class_id", "label_index", "class_index", "label_idx", "class_idx", "classid", "labelid",
           "classindex", "labelindex", "classidx", "labelidx", "class_number", "label_number", "category_id",
           "action_id", "action_class", "target_id")  # fmt: skip
SPLIT_COLUMNS = ("split", "subset")
SPLITS_BY_VALUE = ("partition", "set", "phase", "usage", "data_split", "dataset_split", "split_name", "fold")
"""Read as the split only where every cell names one."""

IDS = ("id", "sample_id", "videoid")

_NUMBER = re.compile(r"-1|[0-9]{1,9}(\.0)?")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a list.

    Attributes:
        where: "folder/list.csv:17", to begin an error with.
        path: as written; undecodable bytes are surrogates.
        label: as written; None when empty or when there is no such column.
        number: of the class, where a second column gives one beside its name.
        segment: which stretch of the video; all None: the whole.
        split: "train", "val" or "test"; None when there is no such column.
        id: as written; None when empty or when there is no such column.
        frames: of a frame folder, as listed: not trusted, but with an offset it says where the video ends.
        offset: number of pictures of the folder that come before the video; None: the folder is the video.
        cells: the whole line.
    """

    where: str
    path: str
    label: str | None = None
    number: str | None = None
    segment: Segment = WHOLE
    split: str | None = None
    id: str | None = None
    frames: int | None = None
    offset: int | None = None
    cells: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Which column gives each field; None: there is none."""

    path: str
    label: str | None
    number: str | None
    split: str | None
    id: str | None
    segments: SegmentColumns


def is_header(cells: Sequence[str]) -> bool:
    """Whether a first line names its columns: one of them is a path."""
    return bool({cell.lower() for cell in cells} & set(PATHS))


def rows_of(where: str, header: Sequence[str], records: Sequence[Record], notes: list[str]) -> tuple[Row, ...]:
    """The rows of a list whose columns have names.

    Args:
        where: place of the header.
        notes: one is added that names the columns left unread.

    Raises:
        DatasetError: a header or a row that cannot be meant; names the place and what was expected.
    """
    columns = _columns(where, header, records)
    fields = [columns.path, columns.label, columns.number, columns.split, columns.id]
    read = {name for name in fields if name} | columns.segments.read
    unread = [name for name in header if name not in read and name]
    check_unread(where, unread, columns.segments)
    if unread:
        notes.append(f"{_file_of(where)}: columns that are not read: {', '.join(map(clean_text, unread))}")
    return tuple(_row(place, cells, columns) for place, cells in records)


def _columns(where: str, header: Sequence[str], records: Sequence[Record]) -> _Columns:
    lowered = [name.lower() for name in header]
    repeated = sorted({name for name in lowered if name and lowered.count(name) > 1})
    if repeated:
        raise DatasetError(f"{where}: the header names {', '.join(map(repr, repeated))} more than once")

    def first(words: Sequence[str], fits: Callable[[str], bool] = lambda name: True) -> str | None:
        named = [header[lowered.index(word)] for word in words if word in lowered]
        return next((name for name in named if fits(name)), None)

    path = first(PATHS)
    if path is None:
        raise DatasetError(
            f"{where}: no path column among {', '.join(map(clean_text, header))}; it may be called {', '.join(PATHS)}."
        )

    def values(name: str) -> set[str]:
        return {cells.get(name, "") for _, cells in records} - {""}

    def counts(name: str) -> bool:
        return all(map(_NUMBER.fullmatch, values(name)))

    label, number = first(LABELS), None
    if label is None:
        label = first(NUMBERS)
    elif not values(label):
        label = (
            first(LABELS, lambda name: bool(values(name))) or first(NUMBERS, lambda name: bool(values(name))) or label
        )
    if label is not None and values(label) and counts(label):
        words = first(LABELS, lambda name: bool(values(name)) and not counts(name))
        number, label = (None, label) if words is None else (label, words)
    elif label is not None:
        number = first(NUMBERS, lambda name: bool(values(name)) and counts(name))
    split = first(SPLIT_COLUMNS) or first(
        SPLITS_BY_VALUE, lambda name: bool(values(name)) and all(map(split_of_word, values(name)))
    )
    return _Columns(
        path=path, label=label, number=number, split=split,
        id=first(IDS, lambda name: name != path), segments=segment_columns(where, header),
    )  # fmt: skip


def _row(where: str, cells: dict[str, str], columns: _Columns) -> Row:
    def cell(name: str | None) -> str:
        return cells.get(name, "") if name else ""

    if not cell(columns.path):
        raise DatasetError(f"{where}: the path is empty")
    segment = columns.segments.of(where, {**dict.fromkeys(columns.segments.read, ""), **cells})
    split = split_of_word(cell(columns.split)) if columns.split else None
    if columns.split and split is None:
        raise DatasetError(f"{where}: split is {cell(columns.split)!r}, expected train, val or test")
    label, number = ("" if text == "-1" else text for text in (cell(columns.label), cell(columns.number)))
    return Row(
        where=where,
        path=cell(columns.path),
        label=label or None,
        number=number or None,
        segment=segment,
        split=split,
        id=cell(columns.id) or None,
        cells=tuple(cells.values()),
    )


def _file_of(where: str) -> str:
    """ "folder/list.csv:1" -> "list.csv"."""
    return clean_text(re.sub(r":( row | entry )?\d+$|: '.*'$", "", where).rpartition("/")[2])
