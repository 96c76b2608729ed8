"""The rows of DeepMind's Kinetics lists, each read whole or refused with its line.

    label,youtube_id,time_start,time_end,split[,is_cc]      test lists lack the label
    "arm wrestling",a_b-c_d_e-f,0,10,validate      ──▶      CsvClip(label, youtube_id, start, end), each once

Consequence: a list that a spreadsheet has saved, with ids turned into numbers or quotes lost, stops the run with the
line; repeated rows and rows of other splits are counted in notes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.datasets.paths import clean_text, read_text, split_of_word
from vidxfer.pipeline.errors import DatasetError

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
CSV_FILES = (".csv", ".txt")
_ID = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvClip:
    """One row: line of the csv, class (None in lists without), YouTube id, first and last second."""

    line: int
    label: str | None
    youtube_id: str
    start: int
    end: int


def is_official(file: Path) -> bool:
    """Whether a list is DeepMind's: its first line names the column youtube_id."""
    if file.suffix not in CSV_FILES:
        return False
    first = read_text(file).lstrip().partition("\n")[0].lower()
    return "youtube_id" in [cell.strip().strip('"') for cell in first.split(",")]


def read_clips(file: Path, split: str, notes: list[str]) -> list[CsvClip]:
    """The clips of a list, each once."""
    clips: dict[tuple[str, int, int], CsvClip] = {}
    repeated, elsewhere = 0, Counter[str]()
    for line, cells in _rows(file):
        where = f"{file}:{line}"
        word = cells.get("split", "")
        if word and split_of_word(word) != split:
            elsewhere[word] += 1
            continue
        clip = _clip(where, line, cells)
        known = clips.setdefault((clip.youtube_id, clip.start, clip.end), clip)
        if known is not clip:
            repeated += 1
            if known.label != clip.label:
                raise DatasetError(
                    f"{where}: {clip.youtube_id} from {clip.start} to {clip.end} s is {clip.label!r} here and "
                    f"{known.label!r} in line {known.line}; a clip has one class"
                )
    if not clips:
        raise DatasetError(f"{file}: lists no clips of {split}")
    if repeated:
        notes.append(f"{repeated} rows of {clean_text(file.name)} are repeated and count once")
    if elsewhere:
        shown = ", ".join(f"{clean_text(word)!r} {count}" for word, count in elsewhere.most_common(3))
        notes.append(f"rows of {clean_text(file.name)} that name another split are left out: {shown}")
    return list(clips.values())


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells by column; blank lines are left out."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if not header:
                    header = [cell.strip().lower() for cell in cells]
                    if not {"youtube_id", "time_start", "time_end"} <= set(header):
                        raise DatasetError(
                            f"{file}:{line}: expected the header {','.join(COLUMNS)}, found {','.join(cells)[:80]!r}"
                        )
                elif len(cells) != len(header):
                    raise DatasetError(
                        f"{file}:{line}: {len(cells)} fields, but the header has {len(header)} ({','.join(header)}); "
                        "a label that holds a comma must be quoted"
                    )
                else:
                    yield line, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
            line = reader.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"{file}:{line}: {error}; is a quote left open?") from error


def _clip(where: str, line: int, cells: dict[str, str]) -> CsvClip:
    label, id_ = cells.get("label"), cells["youtube_id"]
    if label == "":
        raise DatasetError(f"{where}: the label is empty")
    if not _ID.fullmatch(id_):
        raise DatasetError(
            f"{where}: {id_!r} is no YouTube id (letters, digits, - and _). Was the list saved by a spreadsheet?"
        )
    start, end = (_seconds(where, name, cells[name]) for name in ("time_start", "time_end"))
    if end <= start:
        raise DatasetError(f"{where}: the clip ends at {end} s, which is not after its start at {start} s")
    return CsvClip(line=line, label=None if label is None else clean_text(label), youtube_id=id_, start=start, end=end)


def _seconds(where: str, name: str, text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e6 or seconds != int(seconds):
        raise DatasetError(f"{where}: {name} is {text!r}, expected whole seconds such as 84")
    return int(seconds)
