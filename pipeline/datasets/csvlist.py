"""A list of videos: csv, tsv, parquet, or the `path label` and `folder frames label` lists of other toolkits.

    root/list.csv  path,label,split     ──▶  rows of the split; without a split column, a share by hash of the path
    root/train.csv, root/val.csv        ──▶  the list of the split; class names are taken over all the lists
    labels=other/k400_val.txt           ──▶  that list; its paths lie below root; k400_train.txt beside it is the other
    root/train/metadata.csv             ──▶  file_name below root/train, as Hugging Face's video folders have it

Consequence: class names are the same for every split, because they are collected from all lists, sorted. Labels that
are numbers need a file classes.txt (or label_map.txt, one name per line) beside the list to have names.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, absent_note, falls_into_val, unseen_note
from vidxfer.pipeline.datasets.classes import Classes, classes_of
from vidxfer.pipeline.datasets.columns import Row
from vidxfer.pipeline.datasets.disk import Finder
from vidxfer.pipeline.datasets.lists import LIST_FILES, find_lists, rows_in
from vidxfer.pipeline.datasets.paths import Fence, clean_text, split_of_word
from vidxfer.pipeline.datasets.segments import Segment
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import FRAME_FOLDER_FPS, Video

LAYOUT = """\
  <root>/
  ├── train.csv, val.csv              or one list.csv, with a split column or without; .tsv, .txt and .parquet too
  ├── classes.txt                     only for labels that are numbers: one name per line
  └── videos, anywhere below
with lines such as
  path,label,start,end,split,id       label, start, end (seconds), split and id may be left out
  clips/a.mp4,opening a door,,,train,a"""


def load(root: Path, split: str, *, labels: Path | None = None, val_fraction: float = 0.2) -> Dataset:
    """One split of a list.

    `root` is the list itself or the folder its paths lie in; `labels` is the list, or the folder of the lists.

    Raises:
        DatasetError: no list was found, or a row of it cannot be meant; names file and line.
    """
    folder, source = root if root.is_dir() else root.parent, labels or root
    lists = find_lists(source, folder)
    if not lists:
        raise DatasetError(
            f"{source}: no list of videos. Looked for train, val and list with the endings "
            f"{', '.join(LIST_FILES)} in {source}, and for other lists that name videos and labels. Expected:\n{LAYOUT}"
        )
    notes: list[str] = []
    rows_of = {word: _split_by_folder(file, rows_in(file, folder, notes)) for word, file in lists.items()}
    classes = classes_of(
        [row for rows in rows_of.values() for row in rows], source if source.is_dir() else source.parent
    )
    rows, split_notes = _rows_of_split(rows_of, lists, split, val_fraction)
    videos, video_notes = _videos(rows, split, folder, classes)
    other = "val" if split == "train" else split
    with suppress(DatasetError):  # one of the two splits has no rows: then nothing is unseen
        trained, scored = (_rows_of_split(rows_of, lists, name, val_fraction)[0] for name in ("train", other))
        split_notes += unseen_note(map(classes.label, trained), map(classes.label, scored), classes.names, other)
    return Dataset(
        name="csv",
        root=folder,
        split=split,
        videos=videos,
        class_names=classes.names,
        notes=(*notes, *classes.notes, *split_notes, *video_notes),
    )


def _split_by_folder(file: Path, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows of one metadata file for all splits; where every path begins with a split's folder, of that split."""
    words = [split_of_word(row.path.partition("/")[0]) for row in rows]
    if file.stem != "metadata" or None in words or any(row.split for row in rows):
        return rows
    return tuple(replace(row, split=word) for row, word in zip(rows, words, strict=True))


def _rows_of_split(
    rows_of: dict[str, tuple[Row, ...]], lists: dict[str, Path], split: str, val_fraction: float
) -> tuple[list[Row], list[str]]:
    """The rows named after the split; where nothing is named so, a share is val, the rest train, and none is test."""
    notes = []
    have = {row.split for row in rows_of.get("all", ()) if row.split} or (set(rows_of) - {"all"})
    wanted = split
    if have and split == "val" and "val" not in have and "test" in have:
        wanted = "test"
        notes.append("the list has no val rows; its test rows are used for val")
    if wanted not in (have or {"train", "val"}):
        present = (
            f"only {', '.join(sorted(have))}" if have else "and no split column: a share of them is val, the rest train"
        )
        raise DatasetError(
            f"{_named(lists)}: no {split} rows, {present}. Add a list for {split} beside it "
            "(train.csv, val.csv, test.csv), or use one list.csv with a split column."
        )
    if "all" not in rows_of:
        rows = [row for row in rows_of[wanted] if row.split in (None, wanted)]
        if others := len(rows_of[wanted]) - len(rows):
            notes.append(f"{others} rows of {clean_text(lists[wanted].name)} name another split and are left out")
    elif have:
        rows = [row for row in rows_of["all"] if row.split == wanted]
    else:  # by path, not by id: segments of one long video must not stand on both sides
        rows = [row for row in rows_of["all"] if falls_into_val(clean_text(row.path), val_fraction) == (split == "val")]
        notes.append(
            f"no split column: a share of {val_fraction:g} of the videos, chosen by a hash of the path, is val"
        )
    if not rows:
        raise DatasetError(f"{_named(lists)}: no rows are left for {split}; is the list too short, or mislabelled?")
    return rows, notes


def _videos(rows: list[Row], split: str, folder: Path, classes: Classes) -> tuple[tuple[Video, ...], list[str]]:
    fence, finder = Fence(folder), Finder(folder)
    videos: dict[str, tuple[Video, Row]] = {}
    repeats: list[Row] = []
    alike: list[Row] = []
    absent = []
    for row in rows:
        row, path = _found(row, fence, finder)
        segment = segment_of(row)
        if (row.segment.start_seconds, row.segment.end_seconds) != (None, None) and path.is_dir():
            raise DatasetError(
                f"{row.where}: seconds cannot cut {clean_text(row.path)!r}, a folder of pictures without a clock; list "
                "start_frame and end_frame, or 'folder offset frames label' (blanks between, no header)"
            )
        video = Video(
            id=clean_text(row.id) if row.id else _id_from_path(row),
            path=path,
            label=classes.label(row),
            split=split,
            start_seconds=segment.start_seconds,
            end_seconds=segment.end_seconds,
            frames=segment.frames,
        )
        known, known_row = videos.setdefault(video.id, (video, row))
        if known_row is row:
            if not path.exists():
                absent.append(clean_text(row.path))
        elif known != video:
            raise DatasetError(f"{row.where}: id {video.id!r} stands already at {known_row.where}, with other values")
        else:
            (repeats if row.cells == known_row.cells else alike).append(known_row)
    notes = list(absent_note(absent, len(videos), folder))
    if repeats:
        notes.append(
            f"{len(repeats)} rows repeat an earlier row word for word (first {repeats[0].where}) and count once"
        )
    if alike:
        notes.append(
            f"{len(alike)} rows name a video again and differ only in what is not read (first {alike[0].where}); each "
            "video counts once"
        )
    return tuple(video for video, _ in videos.values()), notes


def _found(row: Row, fence: Fence, finder: Finder) -> tuple[Row, Path]:
    """The row's path on disk, and the row with the path as the disk spells it; see `Finder`."""
    path = fence.path(row.path, where=row.where)
    if os.path.lexists(path):
        return row, path
    on_disk = finder.find(row.path)
    if on_disk is None:
        return row, path
    listed = on_disk.relative_to(fence.root).as_posix()
    return replace(row, path=listed), fence.path(listed, where=row.where)


def segment_of(row: Row) -> Segment:
    """The row's stretch; of a part of a frame folder by its nominal clock, half a frame before the first one."""
    if row.offset is None or row.frames is None:
        return row.segment
    return Segment(
        start_seconds=max(0.0, row.offset - 0.5) / FRAME_FOLDER_FPS,
        end_seconds=(row.offset + row.frames - 0.5) / FRAME_FOLDER_FPS,
    )


def _id_from_path(row: Row) -> str:
    """The path as listed; with the segment where there is one, so that segments of one video differ."""
    path, segment = clean_text(row.path), row.segment
    if row.offset is not None:
        return f"{path}@{row.offset}+{row.frames}"
    if segment.frames is not None:
        end = "" if segment.frames.end is None else segment.frames.end
        return f"{path}@frames{segment.frames.start}-{end}"
    if segment.start_seconds is None and segment.end_seconds is None:
        return path
    end = "" if segment.end_seconds is None else f"{segment.end_seconds!r}"
    return f"{path}@{segment.start_seconds or 0.0!r}-{end}"


def _named(lists: dict[str, Path]) -> str:
    return ", ".join(str(path) for path in lists.values())
