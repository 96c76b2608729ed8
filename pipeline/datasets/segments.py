"""Which stretch of a video a row of a list means: the columns that say so, and their arithmetic.

    start_frame,end_frame         50,75            ──▶  frames 50 to 74: counted from 0, the end is not part of it
    start_frame,end_frame,fps     50,75,5          ──▶  those numbers at 5 per second, whatever the video has
    start_time,end_time           00:01:02.5,65    ──▶  62.5 s to 65 s
    start_ms,duration_ms          1500,500         ──▶  1.5 s to 2 s

A column is read by the words in its name, in any order: a side (start, begin, offset, end, stop, duration), a unit
(s, sec, ms, frame, time, …) and words that say nothing (clip, segment, …).

Consequence: a row means what its columns say, or the list is refused. A column that looks as if it changed the meaning
of a row is never left unread.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from vidxfer.pipeline.datasets.column_words import RATES, meaning_of, speaks_of_time, words_of
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import FrameSpan

_PER_SECOND = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6}
_CLOCK = re.compile(r"(?:(?P<hours>\d+):(?=\d+:))?(?P<minutes>\d+):(?P<seconds>\d{1,2}(?:[.,]\d*)?)")
_FRAME = re.compile(r"(\d{1,9})(?:\.0*)?")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The stretch of one row; all None: the whole video."""

    start_seconds: float | None = None
    end_seconds: float | None = None
    frames: FrameSpan | None = None


WHOLE = Segment()


@dataclass(frozen=True, kw_only=True)
class SegmentColumns:
    """The columns of a list that say where its segments lie.

    Attributes:
        column: "start", "end" or "duration" -> its column.
        unit: of all of them: "seconds" … "frames".
        duration_unit: of the duration.
        rate: the column with frames per second.
        repeated: columns that say the same
            in another unit; not read.
    """

    column: Mapping[str, str] = field(default_factory=dict)
    unit: str = "seconds"
    duration_unit: str = "seconds"
    rate: str | None = None
    repeated: tuple[str, ...] = ()

    @property
    def read(self) -> set[str]:
        """The columns that are read."""
        return {*self.column.values(), *([self.rate] if self.rate else [])}

    def of(self, where: str, cells: Mapping[str, str]) -> Segment:
        """The segment of one row.

        Raises:
            DatasetError: a cell is no time or frame number, or the segment holds nothing; begins with `where`.
        """
        if not self.column:
            return WHOLE
        reader = _frame if self.unit == "frames" else _time
        start = reader(where, self.column.get("start"), cells, self.unit)
        end = reader(where, self.column.get("end"), cells, self.unit)
        if "duration" in self.column:
            held = (_frame if self.duration_unit == "frames" else _time)(
                where, self.column["duration"], cells, self.duration_unit
            )
            end = None if held is None else round((start or 0) + held, 6)
        if end is not None and end <= (start or 0):
            unit = "frame" if self.unit == "frames" else "s"
            shown = (
                (f"frame {end:g}", f"frame {start or 0:g}") if unit == "frame" else (f"{end:g} s", f"{start or 0:g} s")
            )
            raise DatasetError(f"{where}: the segment ends at {shown[0]}, which is not after its start at {shown[1]}")
        if self.unit != "frames":
            return Segment(start_seconds=start, end_seconds=end)
        if start is None and end is None:
            return WHOLE
        fps = None if self.rate is None else _fps(where, self.rate, cells)
        return Segment(frames=FrameSpan(start=int(start or 0), end=None if end is None else int(end), fps=fps))


def segment_columns(where: str, header: Sequence[str]) -> SegmentColumns:
    """Which columns of a header say where segments lie.

    Raises:
        DatasetError: two columns say the same thing in one unit, or their units do not fit together.
    """
    columns: dict[tuple[str, str], list[str]] = {}
    for name in header:
        if (meaning := meaning_of(name)) is not None:
            columns.setdefault(meaning, []).append(name)
    for (side, unit), names in columns.items():
        if len(names) > 1 and side != "duration":
            raise DatasetError(
                f"{where}: {' and '.join(map(repr, names))} both say where a segment {side}s, in {unit}; keep one"
            )
    rate = next((name for name in header if "".join(words_of(name)) in RATES), None)
    units = [unit for unit in (*_PER_SECOND, "frames") if {("start", unit), ("end", unit)} & set(columns)]
    every = [name for names in columns.values() for name in names]
    if not units:
        return SegmentColumns()
    unit = units[0]
    column = {side: columns[side, unit][0] for side in ("start", "end") if (side, unit) in columns}
    mixed = {side for side, _ in columns} - {"duration"} - set(column)
    if mixed:
        raise DatasetError(
            f"{where}: {', '.join(map(repr, every))} give start and end in different units; keep one unit"
        )
    duration_unit = unit
    if "end" not in column:
        chosen = _duration(where, columns, unit, column)
        if chosen is not None:
            column["duration"], duration_unit = chosen
    used = rate if unit == "frames" else None
    repeated = [name for name in every if name not in column.values()]
    repeated += [rate] if rate and not used else []
    return SegmentColumns(column=column, unit=unit, duration_unit=duration_unit, rate=used, repeated=tuple(repeated))


def _duration(
    where: str, columns: Mapping[tuple[str, str], list[str]], unit: str, column: Mapping[str, str]
) -> tuple[str, str] | None:
    """The column that says how long a segment is, and its unit."""
    names = {found_unit: columns["duration", found_unit] for side, found_unit in columns if side == "duration"}
    fitting = [column_unit for column_unit in names if (column_unit == "frames") == (unit == "frames")]
    if not names:
        return None
    if len(fitting) != 1 or len(names[fitting[0]]) > 1:
        shown = ", ".join(repr(name) for many in names.values() for name in many)
        raise DatasetError(
            f"{where}: {column['start']!r} says where a segment starts, but not how it ends: {shown} must be one "
            f"column in {'frames (duration_frames)' if unit == 'frames' else 'seconds'}. Add a column with the end."
        )
    return names[fitting[0]][0], fitting[0]


def check_unread(where: str, unread: Sequence[str], segments: SegmentColumns) -> None:
    """Refuse columns that nothing reads and that look as if they changed what a row means.

    Raises:
        DatasetError: there are some; names them.
    """
    half = "start" in segments.column and not {"end", "duration"} & set(segments.column)
    loaded = [name for name in unread if name not in segments.repeated and speaks_of_time(name, half)]
    if loaded:
        raise DatasetError(
            f"{where}: {', '.join(map(repr, loaded))} may say which part of a video a row means, and cannot be read. "
            "Segments are read from start and end in seconds (start_time, end_time), or start_frame and end_frame, "
            "with fps if they count frames of another rate than the video's. If such a column is only a remark, rename "
            f"it (note_{loaded[0]}) or delete it."
        )


def time_of(text: str) -> float | None:
    """Seconds of "12.5", "12.5s", "01:02.5" or "00:01:02,500"; None for anything else, and for what is below 0."""
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        hours, minutes = int(clock["hours"] or 0), int(clock["minutes"])
        seconds = float(clock["seconds"].replace(",", "."))
        fits = seconds < 60 and (clock["hours"] is None or minutes < 60)
        return round(hours * 3600 + minutes * 60 + seconds, 6) if fits else None
    try:
        value = float(text.removesuffix("s").rstrip())
    except ValueError:
        return None
    return value if 0.0 <= value < math.inf else None


def _time(where: str, name: str | None, cells: Mapping[str, str], unit: str) -> float | None:
    text = cells[name] if name else ""
    if not text:
        return None
    value = time_of(text)
    if value is None:
        expected = "seconds such as 12.5, or 00:00:12.5" if unit == "seconds" else f"{unit} such as 12500"
        raise DatasetError(f"{where}: {name} is {text!r}, expected {expected}")
    return value / _PER_SECOND[unit] if unit != "seconds" else value


def _frame(where: str, name: str | None, cells: Mapping[str, str], unit: str) -> float | None:
    text = cells[name] if name else ""
    if not text:
        return None
    number = _FRAME.fullmatch(text)
    if number is None:
        raise DatasetError(f"{where}: {name} is {text!r}, expected the number of a frame, counted from 0, such as 25")
    return float(number[1])


def _fps(where: str, name: str, cells: Mapping[str, str]) -> float:
    try:
        fps = float(Fraction(cells[name]))
    except (ValueError, ZeroDivisionError):
        fps = math.nan
    if not 0.0 < fps < 1e6:
        raise DatasetError(f"{where}: {name} is {cells[name]!r}, expected frames per second such as 25 or 30000/1001")
    return fps
