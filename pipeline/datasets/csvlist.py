"""A list of videos: csv, tsv, parquet, or the `path label` and `folder frames label` lists of other toolkits.

    root/list.csv  path,label,split     ──▶  rows of the split; without a split column, a share by hash of the path
    root/train.csv, root/val.csv        ──▶  the list of the split; class names are taken over all the lists
    labels=other/k400_val.txt           ──▶  that list; its paths lie below root; k400_train.txt beside it is the other
    root/train/metadata.csv             ──▶  file_name below root/train, as Hugging Face's video folders have it

Consequence: class names are the same for every split, because they are collected from all lists, sorted. Labels that
are numbers need a file classes.txt (or label_map.txt, one name per line) beside the list to have names.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, absent_note, falls_into_val
from vidxfer.pipeline.datasets.paths import SPLIT_WORDS, Fence, clean_text, nearest, read_text, split_of_word
from vidxfer.pipeline.datasets.table import Row, read_rows
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

EXTENSIONS = (".csv", ".tsv", ".txt", ".parquet")
STEMS = ("train", "val", "list")
CLASS_FILES = ("classes.txt", "label_map.txt")
MOST_CLASSES = 100_000
"""A number above this is an id in the wrong column, not a label."""

_WORDS = sorted((word for words in SPLIT_WORDS.values() for word in words), key=len, reverse=True)
_SPLIT_IN_NAME = re.compile(rf"(?<![a-z])(?:{'|'.join(_WORDS)})(?=list|[^a-z]|$)", re.IGNORECASE)


def load(root: Path, split: str, *, labels: Path | None = None, val_fraction: float = 0.2) -> Dataset:
    """One split of a list.

    `root` is the list itself or the folder its paths lie in; `labels` is the list, or the folder of the lists.

    Raises:
        DatasetError: no list was found, or a row of it cannot be meant; names file and line.
    """
    folder = root if root.is_dir() else root.parent
    lists = find_lists(labels or root)
    rows_of = {word: _rows(file, folder) for word, file in lists.items()}
    class_names, notes = _class_names(
        rows_of, (labels or root) if (labels or root).is_dir() else (labels or root).parent
    )
    rows, split_notes = _rows_of_split(rows_of, lists, split, val_fraction)
    videos, video_notes = _videos(rows, split, folder, class_names)
    return Dataset(
        name="csv",
        root=folder,
        split=split,
        videos=videos,
        class_names=class_names,
        notes=(*notes, *split_notes, *video_notes),
    )


def is_list_name(name: str) -> bool:
    """Whether a file of this name is taken for a list, as `find_lists` does."""
    stem, extension = Path(name).stem, Path(name).suffix
    return extension in EXTENSIONS and (split_of_word(stem) is not None or stem in ("list", "metadata"))


def find_lists(source: Path) -> dict[str, Path]:
    """The list files by split; one that serves all splits stands under "all".

    Raises:
        DatasetError: there is none; names what was looked for.
    """
    if source.is_file():
        if _split_in_name(source) is None:
            return {"all": source}
        return {_split_in_name(path) or "": path for path in [*_siblings(source), source]}
    found: dict[str, Path] = {}
    for split, words in {**SPLIT_WORDS, "all": ("list", "metadata")}.items():
        files = [source / f"{word}{extension}" for word in words for extension in EXTENSIONS]
        files += [source / word / "metadata.csv" for word in words if split != "all"]
        first = next((file for file in files if file.is_file()), None)
        if first is not None and not (split == "all" and found):
            found[split] = first
    if not found:
        raise DatasetError(
            f"{source}: no list of videos. Looked for train, val and list with the endings {', '.join(EXTENSIONS)} "
            f"in {source}. Expected:\n{LAYOUT}"
        )
    return found


def _rows(file: Path, folder: Path) -> tuple[Row, ...]:
    """The rows of a list; a metadata file means paths beside itself."""
    rows = read_rows(file)
    if file.stem != "metadata" or file.parent == folder or not file.is_relative_to(folder):
        return rows
    beside = file.parent.relative_to(folder).as_posix()
    return tuple(replace(row, path=f"{beside}/{row.path}") for row in rows)


def _split_in_name(file: Path) -> str | None:
    """ "k400_val_se320.txt" → "val", "testlist01.txt" → "test", "trainval.txt" → None."""
    found = _SPLIT_IN_NAME.search(file.stem)
    return split_of_word(found[0]) if found else None


def _siblings(file: Path) -> list[Path]:
    """The lists beside `file` whose names differ from its name only in the word for the split."""
    words = [word for spellings in SPLIT_WORDS.values() for word in reversed(spellings)]
    names = [_SPLIT_IN_NAME.sub(word, file.stem, count=1) + file.suffix for word in words]
    return [path for name in names if (path := file.with_name(name)).is_file()]


def _rows_of_split(
    rows_of: dict[str, tuple[Row, ...]], lists: dict[str, Path], split: str, val_fraction: float
) -> tuple[list[Row], list[str]]:
    notes = []
    have = {row.split for row in rows_of.get("all", ()) if row.split} or (set(rows_of) - {"all"})
    wanted = split
    if have and split == "val" and "val" not in have and "test" in have:
        wanted = "test"
        notes.append("the list has no val rows; its test rows are used for val")
    if have and wanted not in have:
        raise DatasetError(
            f"{_named(lists)}: no {split} rows, only {', '.join(sorted(have))}. Add a list for {split} beside it "
            "(train.csv, val.csv), or use one list.csv with a split column."
        )
    if "all" not in rows_of:
        rows = [row for row in rows_of[wanted] if row.split in (None, wanted)]
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


def _class_names(rows_of: dict[str, tuple[Row, ...]], folder: Path) -> tuple[tuple[str, ...], list[str]]:
    rows = [row for rows in rows_of.values() for row in rows]
    labelled = [row for row in rows if row.label is not None]
    notes = [] if len(labelled) == len(rows) else [f"{len(rows) - len(labelled)} rows carry no label"]
    file = next((path for name in CLASS_FILES if (path := folder / name).is_file()), None)
    if file is not None:
        return tuple(clean_text(line.strip()) for line in read_text(file).splitlines() if line.strip()), notes
    several = next((row for row in labelled if re.fullmatch(r"\d+(; *\d+)+", row.label or "")), None)
    if several is not None:
        raise DatasetError(f"{several.where}: {several.label!r} are several labels; one label per video is read")
    if not labelled or not _are_numbers(labelled):
        return tuple(sorted({clean_text(row.label) for row in labelled if row.label})), notes
    highest = max(labelled, key=_number)
    if _number(highest) >= MOST_CLASSES:
        raise DatasetError(f"{highest.where}: label {highest.label!r}; numbers must be below {MOST_CLASSES}")
    notes.append(
        f"labels are numbers and there is no {CLASS_FILES[0]}: classes are called "
        f"'0' to '{_number(highest)}', which means nothing to a text encoder"
    )
    if min(map(_number, labelled)) == 1:
        notes.append("the smallest label is 1: class '0' has no videos")
    return tuple(str(number) for number in range(_number(highest) + 1)), notes


def _are_numbers(rows: list[Row]) -> bool:
    return all(row.label is not None and re.fullmatch(r"[0-9]{1,9}(\.0)?", row.label) for row in rows)


def _number(row: Row) -> int:
    return int(float(row.label or 0))


def _videos(
    rows: list[Row], split: str, folder: Path, class_names: tuple[str, ...]
) -> tuple[tuple[Video, ...], list[str]]:
    fence = Fence(folder)
    label_of = {name: label for label, name in enumerate(class_names)}
    numbers = _are_numbers([row for row in rows if row.label is not None])
    videos: dict[str, tuple[Video, Row]] = {}
    repeats: Counter[str] = Counter()
    absent = []
    for row in rows:
        path = fence.path(row.path, where=row.where)
        segment = segment_of(row)
        if (row.start_seconds, row.end_seconds) != (None, None) and path.is_dir():
            raise DatasetError(
                f"{row.where}: seconds cannot cut {clean_text(row.path)!r}, a folder of pictures without a clock; list "
                "'folder offset frames label' (blanks between, no header)"
            )
        video = Video(
            id=clean_text(row.id) if row.id else _id_from_path(row),
            path=path,
            label=_label(row, label_of, numbers),
            split=split,
            start_seconds=segment[0],
            end_seconds=segment[1],
        )
        known, known_row = videos.setdefault(video.id, (video, row))
        if known_row is row:
            if not path.exists():
                absent.append(clean_text(row.path))
        elif known == video:
            repeats[known_row.where] += 1
        else:
            raise DatasetError(f"{row.where}: id {video.id!r} stands already at {known_row.where}, with other values")
    notes = list(absent_note(absent, len(videos), folder))
    if repeats:
        where, _ = repeats.most_common(1)[0]
        notes.append(f"{repeats.total()} rows repeat an earlier row word for word (first {where}) and count once")
    return tuple(video for video, _ in videos.values()), notes


def segment_of(row: Row) -> tuple[float | None, float | None]:
    """Seconds from and to; of a part of a frame folder by its nominal clock, half a frame before the first one."""
    if row.offset is None or row.frames is None:
        return row.start_seconds, row.end_seconds
    return max(0.0, row.offset - 0.5) / FRAME_FOLDER_FPS, (row.offset + row.frames - 0.5) / FRAME_FOLDER_FPS


def _id_from_path(row: Row) -> str:
    """The path as listed; with the segment where there is one, so that segments of one video differ."""
    if row.offset is not None:
        return f"{clean_text(row.path)}@{row.offset}+{row.frames}"
    if row.start_seconds is None and row.end_seconds is None:
        return clean_text(row.path)
    end = "" if row.end_seconds is None else f"{row.end_seconds!r}"
    return f"{clean_text(row.path)}@{row.start_seconds or 0.0!r}-{end}"


def _label(row: Row, label_of: dict[str, int], numbers: bool) -> int | None:
    if row.label is None:
        return None
    name = clean_text(row.label)
    if name in label_of:
        return label_of[name]
    if numbers and _number(row) < len(label_of):
        return _number(row)
    raise DatasetError(f"{row.where}: label {name!r} is none of the {len(label_of)} classes{nearest(name, label_of)}")


def _named(lists: dict[str, Path]) -> str:
    return ", ".join(str(path) for path in lists.values())
