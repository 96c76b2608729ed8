"""Folders of videos: the folder a video lies in is its class.

    <root>/train/opening a door/a.mp4     split folders: train, and val, valid, validation or test
    <root>/opening a door/a.mp4           no split folders: a share goes to val by a hash of the id
    <root>/a.mp4                          flat: with a table file,label given as `labels`, or one class
    <root>/train/opening a door/a/1.jpg   a folder with pictures alone is one video

Consequence: the id is the path below the root, so moving the root keeps a cache, renaming a class does not. Classes
are collected over all split folders, so train and val number them alike.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, falls_into_val, unseen_note
from vidxfer.pipeline.datasets.columns import Row
from vidxfer.pipeline.datasets.lists import CLASS_FILES, label_files
from vidxfer.pipeline.datasets.names import looks_like, one_spelling
from vidxfer.pipeline.datasets.paths import (
    SPLIT_WORDS,
    VIDEO_EXTENSIONS,
    Fence,
    clean_text,
    is_litter,
    is_picture_name,
    is_video_name,
    list_folder,
    read_text,
    split_of_word,
    unreadable,
)
from vidxfer.pipeline.datasets.segments import WHOLE
from vidxfer.pipeline.datasets.table import read_rows
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

LAYOUT = """\
  <root>/
  ├── train/                  split folders may be left out: then a share of the videos is val
  │   ├── opening a door/     the class
  │   │   ├── a.mp4           or a folder of pictures, a/00001.jpg, …
  │   │   └── …
  │   └── …
  └── val/                    or valid/, validation/, test/
      └── …
with videos that end in """ + " ".join(sorted(VIDEO_EXTENSIONS))


@dataclass(frozen=True, kw_only=True)
class _Found:
    """One video file or folder of pictures.

    `parts` are the names from the split folder (or root) down, undecodable bytes as surrogates.
    """

    path: Path
    parts: tuple[str, ...]


def load(root: Path, split: str, *, labels: Path | None = None, val_fraction: float = 0.2) -> Dataset:
    """One split of a folder of videos. `labels` is a table file,label that replaces folder names as classes.

    Raises:
        DatasetError: there are no videos, a link leaves the folder, or the table cannot be meant.
    """
    notes: list[str] = []
    places = _split_folders(root, notes)
    found_of = {name: _walk(place, notes) for name, place in (places or {"all": root}).items()}
    if not any(found_of.values()):
        raise DatasetError(f"{root}: no videos here. Expected:\n{LAYOUT}")
    if labels is not None:
        class_names, label_of = _labels_from_table(root, labels, found_of, notes)
    else:
        class_names, label_of = _labels_from_folders(root, found_of, notes)
    other = "val" if split == "train" else split
    if {"train", other} <= set(found_of):
        trained, scored = ([label_of.get(video.path) for video in found_of[part]] for part in ("train", other))
        notes += unseen_note(trained, scored, class_names, other)
    videos = [
        Video(id=_id(root, video.path), path=video.path, label=label_of[video.path], split=split)
        for video in _of_split(root, found_of, split, val_fraction, notes)
        if video.path in label_of
    ]
    if not videos:
        raise DatasetError(f"{root}: no videos are left for {split}; add a folder {split}/, or change the val share")
    if labels is None and len(class_names) == 1:
        _check_one_class(root, class_names[0])
    videos.sort(key=lambda video: video.id)
    return Dataset(
        name="folder", root=root, split=split, videos=tuple(videos), class_names=class_names, notes=tuple(notes)
    )


def _split_folders(root: Path, notes: list[str]) -> dict[str, Path]:
    """The split folders by split; none when the folders are classes (one of which may well be called "train")."""
    folders = sorted(entry.name for entry in list_folder(root) if entry.is_dir() and not is_litter(entry.name))
    named = {name.lower(): root / name for name in reversed(folders)}
    places = {split: named[word] for split, words in SPLIT_WORDS.items() for word in reversed(words) if word in named}
    others = [name for name in folders if split_of_word(name) is None]
    if not places or ("train" not in places and others) or (set(places) == {"train"} and others):
        return {}
    unused = [name for name in folders if root / name not in places.values()]
    if unused:
        notes.append(f"folders beside the split folders are not read: {', '.join(map(repr, map(clean_text, unused)))}")
    return places


def _walk(place: Path, notes: list[str]) -> list[_Found]:
    """Every video below `place`. Litter is left out, folders of it and other files are counted in a note."""
    fence = Fence(place)
    videos, left_out, linked, litter = [], Counter[str](), set[Path](), Counter[str]()
    for folder, names, files in os.walk(place, onerror=unreadable, followlinks=True):
        below = Path(folder).relative_to(place).parts
        litter.update(name for name in names if is_litter(name) and not name.startswith("."))
        names[:] = sorted(name for name in names if not is_litter(name))
        for name in names:
            if (Path(folder) / name).is_symlink():
                target = fence.path(Path(folder) / name, where=clean_text(f"{folder}/{name}")).resolve()
                if target in linked:  # links in a circle would be walked for ever
                    raise DatasetError(f"{clean_text(f'{folder}/{name}')}: a second link to one folder; remove it")
                linked.add(target)
        if below and not names and any(map(is_picture_name, files)) and not any(map(is_video_name, files)):
            videos.append(_Found(path=Path(folder), parts=below))
            continue
        for name in sorted(name for name in files if not is_litter(name)):
            if not is_video_name(name):
                left_out[clean_text(Path(name).suffix.lower()) or "without extension"] += 1
                continue
            path = fence.path(Path(folder) / name, where=clean_text(f"{folder}/{name}"))
            videos.append(_Found(path=path, parts=(*below, name)))
    if litter:
        shown = ", ".join(map(repr, sorted(litter)[:5]))
        notes.append(f"{place.name}: {litter.total()} folders of previews and leftovers are not read ({shown})")
    if left_out:
        shown = ", ".join(f"{count} {extension}" for extension, count in left_out.most_common(5))
        notes.append(f"{place.name}: {left_out.total()} files are not videos by their name ({shown})")
    return videos


def _id(root: Path, path: Path) -> str:
    return clean_text(path.relative_to(root).as_posix())


def _labels_from_folders(
    root: Path, found_of: dict[str, list[_Found]], notes: list[str]
) -> tuple[tuple[str, ...], dict[Path, int | None]]:
    """The first folder below the split is the class; videos outside of class folders count only if all are."""
    every = [video for founds in found_of.values() for video in founds]
    classed = [video for video in every if len(video.parts) > 1]
    if not classed:
        name = clean_text(root.name) or "video"
        notes.append(f"flat folder: all {len(every)} videos are of the one class {name!r}")
        return (name,), {video.path: 0 for video in every}
    loose = [video for video in every if len(video.parts) == 1]
    if loose:
        notes.append(
            f"{len(loose)} videos outside of class folders are left out, {clean_text(loose[0].parts[0])!r} first"
        )
    deep = sum(len(video.parts) > 2 for video in classed)
    if deep:
        notes.append(f"{deep} videos lie deeper than their class folder; the first folder is taken as their class")
    spelling, spelled = one_spelling(clean_text(video.parts[0]) for video in classed)
    notes += spelled
    names = tuple(sorted(set(spelling.values())))
    if len(names) > 1 and (unread := label_files(root)):
        notes.append(
            f"files that name these videos are not read, folders say the classes: {', '.join(f.name for f in unread)}"
        )
    label_of = {name: label for label, name in enumerate(names)}
    return names, {video.path: label_of[spelling[clean_text(video.parts[0])]] for video in classed}


def _check_one_class(root: Path, name: str) -> None:
    """A head with one class is never wrong, so one class must be meant: a file of class names with that one says so.

    Raises:
        DatasetError: it does not.
    """
    file = next((root / file for file in CLASS_FILES if (root / file).is_file()), None)
    said = [] if file is None else [clean_text(line) for line in read_text(file).splitlines() if line.strip()]
    if list(map(looks_like, said)) == [looks_like(name)]:
        return
    unread = ", ".join(clean_text(file.name) for file in label_files(root))
    raise DatasetError(
        f"{root}: all videos would be of one class, {name!r}. "
        + (f"Beside them lie {unread}, which name these videos and are not read. " if unread else "")
        + "Give the list of labels with --labels (rows file,label), or lay the videos in a folder per class. If they "
        f"really are of one class, write the line {name!r} into {root / CLASS_FILES[0]}."
    )


def _labels_from_table(
    root: Path, table: Path, found_of: dict[str, list[_Found]], notes: list[str]
) -> tuple[tuple[str, ...], dict[Path, int | None]]:
    """A row names a video by its path below the root or split folder, by its file name, or by its stem."""
    label_of_name: dict[str, tuple[str, Row]] = {}
    fence = Fence(root)
    for row in read_rows(table, notes, videos_only=False):
        if row.label is None:
            raise DatasetError(f"{row.where}: no label, expected file,label")
        if row.segment != WHOLE or row.split is not None:
            raise DatasetError(
                f"{row.where}: a segment or a split, which folders cannot take from a table. Read the list as what it "
                f"is: --dataset csv --root {root} --labels {table}"
            )
        key = looks_like(clean_text(fence.below(row.path)))
        known = label_of_name.setdefault(key, (clean_text(row.label), row))
        if looks_like(known[0]) != looks_like(row.label):
            raise DatasetError(f"{row.where}: {clean_text(row.path)!r} has another label at {known[1].where}")
    spelling, spelled = one_spelling(label for label, _ in label_of_name.values())
    notes += spelled
    names = tuple(sorted(set(spelling.values())))
    number_of = {written: names.index(name) for written, name in spelling.items()}
    used: set[str] = set()
    result: dict[Path, int | None] = {}
    for split, founds in found_of.items():
        for video in founds:
            below = clean_text("/".join(video.parts))
            whole = f"{video.path.parents[len(video.parts) - 1].name}/{below}" if split != "all" else below
            keys = [looks_like(key) for key in (whole, below, clean_text(video.path.name), clean_text(video.path.stem))]
            named = next((key for key in keys if key in label_of_name), None)
            result[video.path] = None if named is None else number_of[label_of_name[named][0]]
            used |= {named} if named is not None else set()
    without_row = sum(label is None for label in result.values())
    if without_row == len(result):
        raise DatasetError(
            f"{table}: names none of the {len(result)} videos; expected rows like {_example(result)},label"
        )
    if without_row:
        notes.append(f"{without_row} videos have no row in {table.name} and therefore no label")
    if len(used) < len(label_of_name):
        notes.append(f"{len(label_of_name) - len(used)} rows of {table.name} name no video here")
    return names, result


def _example(result: dict[Path, int | None]) -> str:
    return clean_text(next(iter(result)).name)


def _of_split(
    root: Path, found_of: dict[str, list[_Found]], split: str, val_fraction: float, notes: list[str]
) -> list[_Found]:
    if split == "val" and not found_of.get("val") and found_of.get("test"):
        notes.append("there is no val folder; the test folder is used for val")
        return found_of["test"]
    if set(found_of) in ({"all"}, {"train"}) and split != "test":
        (founds,) = found_of.values()
        notes.append(f"no split folders: a share of {val_fraction:g} of the videos, chosen by a hash of the id, is val")
        return [f for f in founds if falls_into_val(_id(root, f.path), val_fraction) == (split == "val")]
    if not found_of.get(split):
        raise DatasetError(
            f"{root}: no videos for {split}. Looked for the folders {', '.join(SPLIT_WORDS[split])}; "
            f"found {', '.join(sorted(found_of))}. Expected:\n{LAYOUT}"
        )
    return found_of[split]
