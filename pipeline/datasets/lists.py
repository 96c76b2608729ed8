"""Which files of a folder are lists of videos, and of which split each is.

    train.csv, val.csv or list.csv, metadata.*     by their names
    train/metadata.jsonl, train/labels.json        Hugging Face's and FiftyOne's: they list what lies beside them
    gestures_train.txt, gestures_val.txt           any other list that names videos and labels; the split by a word

Consequence: a folder that comes with labels is never read without them: what names its videos is a list of them, or is
named as unread with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from vidxfer.pipeline.datasets.columns import Row
from vidxfer.pipeline.datasets.disk import Finder, videos_below
from vidxfer.pipeline.datasets.paths import SPLIT_WORDS, Fence, clean_text, is_litter, list_folder, split_of_word
from vidxfer.pipeline.datasets.records import RECORD_FILES
from vidxfer.pipeline.datasets.table import read_rows
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.reading import opened

LIST_FILES = (".csv", ".tsv", ".txt", *RECORD_FILES)
LIST_STEMS = ("train", "val", "list")
CLASS_FILES = ("classes.txt", "label_map.txt")
FOLDERS = ("", "annotations", "labels", "lists", "splits")
"""Where lists of any name are looked for."""

BESIDE = ("metadata", "labels")
"""Lists of these names in the folder of a split mean paths beside themselves."""

MOST_TRIED = 50
"""Rows of a list that are looked for on disk to see whether it is one of these videos."""

MOST_VIDEOS, MOST_BYTES = 1000, 2**20
"""Videos, and bytes of a file that is no list, that are looked at to see whether it names videos."""

_WORDS = sorted((word for words in SPLIT_WORDS.values() for word in words), key=len, reverse=True)
_SPLIT_IN_NAME = re.compile(rf"(?<![a-z])(?:{'|'.join(_WORDS)})(?=list|[^a-z]|$)", re.IGNORECASE)


def find_lists(source: Path, root: Path | None = None) -> dict[str, Path]:
    """The list files by split; one that serves all splits stands under "all".

    Args:
        source: a list, or a folder of lists.
        root: where the videos lie; `source` when None.

    Raises:
        DatasetError: two files list one split.
    """
    if source.is_file():
        if split_in_name(source) is None:
            return {"all": source}
        return {split_in_name(path) or "": path for path in [*_siblings(source), source]}
    lists: dict[str, Path] = {}
    for split, words in {**SPLIT_WORDS, "all": ("list", "metadata")}.items():
        files = [source / f"{word}{extension}" for word in words for extension in LIST_FILES]
        files += [source / word / f"{stem}{extension}" for word in words for stem in BESIDE for extension in LIST_FILES]
        first = next((file for file in files if file.is_file()), None)
        if first is not None and not (split == "all" and lists):
            lists[split] = first
    return lists or _others(source, root or source)


def label_files(root: Path) -> list[Path]:
    """Files that name videos of `root`, whether they can be read as a list or not."""
    return [file for file in _candidates(root) if _names_videos(file, root)]


def unread_lists(source: Path, root: Path) -> dict[Path, str]:
    """Files that name videos of `root` and cannot be read as their list: file -> why."""
    why: dict[Path, str] = {}
    for file in _candidates(source):
        try:
            _labelled_here(file, root)
        except DatasetError as error:
            if _names_videos(file, root):
                why[file] = str(error)
    return why


def rows_in(file: Path, root: Path, notes: list[str]) -> tuple[Row, ...]:
    """The rows of a list, with paths below the root; see `BESIDE`."""
    rows = read_rows(file, notes)
    fence = Fence(root)
    rows = tuple(replace(row, path=fence.below(row.path)) for row in rows)
    if file.stem not in BESIDE or file.parent == root or not file.is_relative_to(root):
        return rows
    beside = file.parent.relative_to(root).as_posix()
    return tuple(replace(row, path=f"{beside}/{row.path}") for row in rows)


def split_in_name(file: Path) -> str | None:
    """ "k400_val_se320.txt" → "val", "testlist01.txt" → "test", "trainval.txt" → None."""
    match = _SPLIT_IN_NAME.search(file.stem)
    return split_of_word(match[0]) if match else None


def _siblings(file: Path) -> list[Path]:
    """The lists beside `file` whose names differ from its name only in the word for the split."""
    words = [word for spellings in SPLIT_WORDS.values() for word in reversed(spellings)]
    names = [_SPLIT_IN_NAME.sub(word, file.stem, count=1) + file.suffix for word in words]
    return [path for name in names if (path := file.with_name(name)).is_file()]


def _candidates(source: Path) -> Iterator[Path]:
    """Files that may be lists, by their endings."""
    for folder in FOLDERS:
        place = source / folder
        if place.is_dir():
            names = sorted(entry.name for entry in list_folder(place))
            files = [place / name for name in names if not is_litter(name) and name not in CLASS_FILES]
            yield from (file for file in files if file.suffix.lower() in LIST_FILES and file.is_file())


def _others(source: Path, root: Path) -> dict[str, Path]:
    """Lists of any name that give labels to videos of `root`."""
    lists: dict[str, Path] = {}
    for file in _candidates(source):
        try:
            fits = _labelled_here(file, root)
        except DatasetError:
            continue
        split = split_in_name(file) or "all"
        if fits and split in lists:
            raise DatasetError(
                f"{source}: {clean_text(lists[split].name)} and {clean_text(file.name)} both list videos of "
                f"{'every split' if split == 'all' else split}. Give the one that is meant with --labels."
            )
        if fits:
            lists[split] = file
    if "all" in lists and len(lists) > 1:
        names = ", ".join(clean_text(file.name) for file in lists.values())
        raise DatasetError(f"{source}: {names} list videos of one split and of every split. Name one with --labels.")
    return lists


def _labelled_here(file: Path, root: Path) -> bool:
    """Whether a list has labels, and one of its first videos is on disk."""
    rows = rows_in(file, root, [])
    finder = Finder(root)
    return any(row.label for row in rows) and any(
        (path := finder.find(row.path)) is not None and path != root
        for row in rows[:MOST_TRIED]
        if "\0" not in row.path
    )


def _names_videos(file: Path, root: Path) -> bool:
    """Whether a file names half of the first videos, or half of its lines name one of them, by file name or stem."""
    paths = list(islice(videos_below(root, Fence(root), 3), MOST_VIDEOS))
    with opened(file) as stream:
        text = stream.read(MOST_BYTES).decode("utf-8", "surrogateescape")
    lines = [set(re.split(r"[\s,;:\"'/|\[\]{}]+", line)) for line in text.splitlines() if line.strip()]
    words = set().union(*lines)
    named = [path for path in paths if {path.name, path.stem} & words]
    known = {name for path in paths for name in (path.name, path.stem)}
    naming = sum(bool(line & known) for line in lines)
    return bool(named) and (2 * len(named) >= len(paths) or 2 * naming >= len(lines))
