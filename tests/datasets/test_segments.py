"""Columns that say which part of a video a row means: read in their usual spellings, or refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.datasets import Dataset, load_dataset
from vidxfer.pipeline.datasets.column_words import words_of
from vidxfer.pipeline.datasets.segments import time_of
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import FrameSpan

Touch = Callable[..., Path]


def read(root: Path, header: str, *lines: str) -> Dataset:
    (root / "train.csv").write_text("\n".join([f"path,label,{header}", *(f"a.mp4,x,{line}" for line in lines)]) + "\n")
    return load_dataset("csv", root, "train")


def spans(dataset: Dataset) -> list[tuple[float | None, float | None] | FrameSpan | None]:
    return [one.frames or ((one.start_seconds, one.end_seconds) if one.is_segment else None) for one in dataset.videos]


@pytest.mark.parametrize(
    "header",
    ["start_frame,end_frame", "frame_start,frame_end", "start_frame,stop_frame", "startFrame,endFrame",
    "begin_frame,end_frame",
     "clip_start_frame,clip_end_frame",
     "Start Frame,End Frame", "startframe,endframe", "start_idx,end_idx",
     "start_frame_index,end_frame_index", "frame_offset,end_frame"],
)  # fmt: skip
def test_frames_are_half_open_and_counted_from_zero(touch: Touch, header: str) -> None:
    found = read(touch("a.mp4"), header, "0,25", "50,75", "25.0,", ",")
    assert spans(found) == [FrameSpan(start=0, end=25), FrameSpan(start=50, end=75), FrameSpan(start=25), None]
    assert [one.id for one in found.videos] == ["a.mp4@frames0-25", "a.mp4@frames50-75", "a.mp4@frames25-", "a.mp4"]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("start_time,end_time", "62.5,65"), ("time_start,time_end", "00:01:02.5,00:01:05"), ("t_start,t_end",
        "62.5,65"),
        ("start_timestamp,stop_timestamp", "00:01:02.500,01:05"), ("start_sec,end_sec", "62.5,65"), ("begin,end",
        "62.5,65"),
        ("start_ms,end_ms", "62500,65000"), ("clip_start,clip_end", "62.5,65"), ("offset,duration", "62.5,2.5"),
        ("start_offset,duration", "62.5,2.5"), ("start_offset_ms,end_ms", "62500,65000"),
        ("start_seconds,duration_ms", "62.5,2500"), ("start (s),end (s)", "62.5,65"), ("startTime,endTime",
        "62.5s,65s"),
        ("start_time_ms,end_time_ms", "62500,65000"), ("segment_start,segment_length", "62.5,2.5"), ("from,to",
        "62.5,65"),
        ("starttime,endtime", '"00:01:02,500","00:01:05,000"'), ("start_us,end_us", "62500000,65000000"),
        ("start_s,end_s", "62.5,65"), ("tstart,tend", "62.5,65"), ("event_begin_seconds,event_end_seconds", "62.5,65"),
    ],
)  # fmt: skip
def test_seconds_in_their_usual_spellings(touch: Touch, header: str, line: str) -> None:
    found = read(touch("a.mp4"), header, line)
    assert spans(found) == [(62.5, 65.0)]
    assert found.videos[0].id == "a.mp4@62.5-65.0"


def test_frames_with_their_rate_keep_it(touch: Touch) -> None:
    found = read(touch("a.mp4"), "start_frame,end_frame,fps", "5,10,29.97", "5,11,30000/1001")
    assert spans(found) == [FrameSpan(start=5, end=10, fps=29.97), FrameSpan(start=5, end=11, fps=30000 / 1001)]
    assert spans(read(touch("a.mp4"), "start_frame,duration_frames", "5,10")) == [FrameSpan(start=5, end=15)]


def test_time_is_preferred_to_frames_and_the_rest_is_named(touch: Touch) -> None:
    found = read(touch("a.mp4"), "start_time,end_time,start_frame,end_frame,fps,duration,note", "1,2,25,50,25,9,hi")
    assert spans(found) == [(1.0, 2.0)]
    assert found.notes == ("train.csv: columns that are not read: start_frame, end_frame, fps, duration, note",)


@pytest.mark.parametrize(
    "name",
    ["start_min", "endpoint", "stop_reason", "beginning_of", "time", "timestamp", "frame", "frame_count", "frames",
    "fps",
     "framerate", "offset_x", "duration", "Duration", "timeStamp", "FPS", "video_start", "clip_fps_note", "startle"],
)  # fmt: skip
def test_unread_columns_that_may_cut_a_video_are_refused_by_name(touch: Touch, name: str) -> None:
    with pytest.raises(DatasetError, match=rf"train.csv:1: '{name}' may say which part of a video a row means"):
        read(touch("a.mp4"), name, "1")


def test_every_other_unread_column_is_named(touch: Touch) -> None:
    found = read(touch("a.mp4"), "caption,Num_Frames,weather", "hi,100,dry")
    assert found.notes == ("train.csv: columns that are not read: caption, Num_Frames, weather",)
    with pytest.raises(DatasetError, match="'Num_Frames' may say which part"):
        read(touch("a.mp4"), "start_frame,Num_Frames", "5,100")


@pytest.mark.parametrize(
    ("header", "line", "message"),
    [
        ("start_frame,end_frame", "-1,5", "csv:2: start_frame is '-1', expected the number of a frame"),
        ("start_frame,end_frame", "5,5", "csv:2: the segment ends at frame 5, which is not after its start at frame 5"),
        ("start_frame,end_frame", "7,5", "csv:2: the segment ends at frame 5, which is not after its start at frame 7"),
        ("start_frame,end_frame", "nan,5", "csv:2: start_frame is 'nan'"),
        ("start_frame,end_frame", "1.5,5", "csv:2: start_frame is '1.5'"),
        ("start_frame,end_frame,fps", "1,5,0", "csv:2: fps is '0', expected frames per second"),
        ("start_frame,end_frame,fps", "1,5,", "csv:2: fps is ''"),
        ("start_time,end_time", "00:61:00,5", "csv:2: start_time is '00:61:00', expected seconds"),
        ("start_time,end_time", "-1,5", "csv:2: start_time is '-1'"),
        ("start_time,end_time", "inf,5", "csv:2: start_time is 'inf'"),
        ("start_ms,end_ms", "5,5", "csv:2: the segment ends at 0.005 s, which is not after"),
        ("offset,duration", "5,0", "csv:2: the segment ends at 5 s, which is not after its start at 5 s"),
        ("start_frame,end_time", "5,6", "csv:1: 'start_frame', 'end_time' give start and end in different units"),
        (
            "start,start_time,end",
            "1,1,2",
            "csv:1: 'start' and 'start_time' both say where a segment starts, in seconds",
        ),
        (
            "start_frame,duration_seconds",
            "5,6",
            "csv:1: 'start_frame' says where a segment starts, but not how it ends",
        ),
    ],
)
def test_a_segment_that_cannot_be_meant_is_refused_with_its_line(
    touch: Touch, header: str, line: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        read(touch("a.mp4"), header, line)


def test_rows_that_differ_only_in_what_is_not_read_are_no_word_for_word_repeats(touch: Touch) -> None:
    found = read(touch("a.mp4"), "start_frame,caption", "5,hi", "5,ho", "5,hi", "6,hi")
    assert len(found) == 2
    assert re.search(r"1 rows repeat an earlier row word for word \(first .*csv:2\)", found.notes[1])
    assert re.search(r"1 rows name a video again and differ only in what is not read \(first .*csv:2\)", found.notes[2])


def test_frames_cut_a_folder_of_pictures_and_seconds_do_not(touch: Touch) -> None:
    root = touch("a.mp4/1.jpg")
    assert spans(read(root, "start_frame,end_frame", "1,3")) == [FrameSpan(start=1, end=3)]
    with pytest.raises(DatasetError, match=r"seconds cannot cut 'a\.mp4'"):
        read(root, "start,end", "1,3")


def test_a_table_for_folders_cannot_cut_or_split(touch: Touch) -> None:
    root = touch("a.mp4", "b.mp4")
    for header, line in (("start_frame", "3"), ("split", "test")):
        (root / "table.csv").write_text(f"file,label,{header}\na.mp4,x,{line}\nb.mp4,y,{line}\n")
        with pytest.raises(DatasetError, match=r"csv:2: a segment or a split.*--dataset csv --root"):
            load_dataset("folder", root, "train", labels=root / "table.csv")


def test_a_fingerprint_tells_frames_from_seconds_and_from_each_other(touch: Touch) -> None:
    root = touch("a.mp4")
    texts = [("start_frame,end_frame,id", "1,2,q"), ("start_frame,end_frame,id", "1,3,q"), ("start,end,id", "1,2,q"),
             ("start_frame,end_frame,fps,id", "1,2,5,q"), ("id", "q")]  # fmt: skip
    assert len({read(root, *text).fingerprint for text in texts}) == len(texts)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59_999))
def test_clock_times_are_hours_minutes_seconds(hours: int, minutes: int, thousandths: int) -> None:
    seconds = f"{thousandths // 1000:02d}.{thousandths % 1000:03d}"
    expected = hours * 3600 + minutes * 60 + thousandths / 1000
    for text in (f"{hours:02d}:{minutes:02d}:{seconds}", f"{hours}:{minutes:02d}:{seconds.replace('.', ',')}"):
        assert time_of(text) == pytest.approx(expected, abs=1e-9)
    assert time_of(f"{minutes}:{seconds}") == pytest.approx(expected - hours * 3600, abs=1e-9)


@given(st.floats(0, 1e6))
def test_plain_seconds_are_kept_to_the_last_bit(seconds: float) -> None:
    assert time_of(repr(seconds)) == seconds


@pytest.mark.parametrize(
    "text", ["", "1:2:3:4", "00:60:00", "0:00:60", "-1", "nan", "1e999", "1,5", "1:2x", "2020-01-01"]
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert time_of(text) is None


def test_column_names_come_apart() -> None:
    assert words_of("startTime_sec") == ["start", "time", "sec"]
    assert words_of("end (ms)") == ["end", "ms"]
    assert words_of("clipstart") == ["clip", "start"]
    assert words_of("trend") == ["trend"]
