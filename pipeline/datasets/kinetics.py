"""Kinetics-400, -600 and -700 as they are downloaded: DeepMind's csv files, and the videos in any usual packing.

    annotations/train.csv    label,youtube_id,time_start,time_end,split[,is_cc]
                             testifying,---QUuC4vJs,84,94,validate
                                           └ id of the video here: ---QUuC4vJs_84_94

Consequence: the csv decides what is listed and what it is called, the disk only what is there; every copy of Kinetics
lacks other videos, so notes and reports say how many. Class names are sorted over all csv files, the same for every
split.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.kinetics_csv import CSV_FILES, CsvClip, is_official, read_clips
from vidxfer.pipeline.datasets.kinetics_disk import OnDisk, find_videos, parse_name, simple_class
from vidxfer.pipeline.datasets.listed import load_listed
from vidxfer.pipeline.datasets.paths import SPLIT_WORDS, Fence, clean_text
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

CLASSES_OF = {"k400": 400, "k600": 600, "k700": 700}
"""Kinds of this layout, and how many classes each has when it is whole."""

LAYOUT = """\
  <root>/
  ├── annotations/                      or the root itself, or kinetics400/, kinetics600/, kinetics700/
  │   ├── train.csv                     label,youtube_id,time_start,time_end,split
  │   └── val.csv                       or validate.csv
  ├── train/                            or videos_train/, train_256/, videos/
  │   └── ---QUuC4vJs_000084_000094.mp4    or <class>/<that>.mp4, .mkv, .webm
  ├── val/                              or validate/, videos_val/, val_256/
  │   └── …
  └── replacement/replacement_for_corrupted_k400/    used where it is there
The lists are DeepMind's; the Common Visual Data Foundation hands out lists and videos, see
https://github.com/cvdfoundation/kinetics-dataset"""

PREFIXES = ("", "kinetics_", "kinetics-{n}_", "kinetics{n}_", "k{n}_")


def load(root: Path, split: str, *, kind: str, labels: Path | None = None) -> Dataset:
    """One split; `labels` is the folder of the csv files, or one of them, where they are not below the root.

    `labels` may also be the list of another toolkit, `file label` or `folder frames label`.

    Raises:
        DatasetError: a list is missing or a row of it cannot be meant; or none of the listed videos is on disk.
    """
    bases = _bases(root, kind)
    if labels is not None and labels.is_file() and not is_official(labels):
        return _load_listed(root, split, kind, labels, bases)
    lists = _find_lists(bases, kind, split, labels)
    notes: list[str] = []
    clips_of = {name: read_clips(file, name, notes if name == split else []) for name, file in lists.items()}
    named = {clip.label for clips in clips_of.values() for clip in clips if clip.label}
    class_names = tuple(sorted(named))
    label_of = {name: label for label, name in enumerate(class_names)}
    if len(named) != CLASSES_OF[kind]:
        listed = " and ".join(clean_text(file.name) for file in lists.values())
        notes.append(f"{listed} name {len(named)} classes; the whole of {kind} has {CLASSES_OF[kind]}")
    unlabelled = next((clip for clip in clips_of[split] if clip.label is None), None)
    if unlabelled is not None and split != "test":
        raise DatasetError(f"{lists[split]}:{unlabelled.line}: no label; lists of {split} need the column label")
    on_disk = find_videos(bases, split, LAYOUT)
    paths = _paths(clips_of[split], on_disk, lists[split], notes)
    videos = tuple(
        Video(
            id=f"{clip.youtube_id}_{clip.start}_{clip.end}",
            path=path,
            label=None if clip.label is None else label_of[clip.label],
            split=split,
        )
        for clip, path in zip(clips_of[split], paths, strict=True)
    )
    return Dataset(name=kind, root=root, split=split, videos=videos, class_names=class_names, notes=tuple(notes))


def _load_listed(root: Path, split: str, kind: str, labels: Path, bases: list[Path]) -> Dataset:
    """By a list of another toolkit: a clip is found by its path, else by YouTube id and times."""
    on_disk = find_videos(bases, split, LAYOUT, frames=True)
    by_id = {key[0]: paths[0] for key, paths in on_disk.timed.items()}

    def find(listed: str, stem: str) -> tuple[str, Path] | None:
        key = parse_name(stem)
        of_key = on_disk.untimed.get(key, []) if isinstance(key, str) else on_disk.timed.get(key, [])
        at_place = [path for path in of_key if path == on_disk.folder / listed]
        path = next(iter(at_place or of_key), by_id.get(stem))
        name = stem if isinstance(key, str) else "{}_{}_{}".format(*key)
        return None if path is None else (name, path)

    return load_listed(kind, root, split, labels=labels, folder=on_disk.folder, find=find)


def lists_there(root: Path, kind: str, labels: Path | None) -> list[Path]:
    """The official train and val lists that lie in a root, for `recognise`."""
    for folder in _list_folders(_bases(root, kind), labels):
        lists = [file for split in ("train", "val") if (file := _list_of(folder, kind, split)) is not None]
        if any(map(is_official, lists)):
            return [file for file in lists if is_official(file)]
    return []


def _bases(root: Path, kind: str) -> list[Path]:
    digits = kind.removeprefix("k")
    names = ("k{}", "kinetics{}", "kinetics-{}", "kinetics_{}", "k{}-2020", "kinetics{}_2020")
    return [root, *(root / name.format(digits) for name in names)]


def _list_folders(bases: list[Path], labels: Path | None) -> list[Path]:
    if labels is not None:
        return [labels if labels.is_dir() else labels.parent]
    return [folder for base in bases for folder in (base / "annotations", base)]


def _list_of(folder: Path, kind: str, split: str) -> Path | None:
    """The list of a split; of Kinetics-600 the .txt, since the .csv handed out with it lacks rows."""
    prefixes = [prefix.format(n=kind.removeprefix("k")) for prefix in PREFIXES]
    endings = tuple(reversed(CSV_FILES)) if kind == "k600" else CSV_FILES
    names = (f"{p}{word}{ext}" for word in SPLIT_WORDS[split] for ext in endings for p in prefixes)
    lists = [folder / name for name in names if (folder / name).is_file()]
    return next((file for file in lists if is_official(file)), lists[0] if lists else None)


def _find_lists(bases: list[Path], kind: str, split: str, labels: Path | None) -> dict[str, Path]:
    """The list of each split that is there, all from the first folder that has the one asked for."""
    folders = _list_folders(bases, labels)
    for folder in folders:
        if _list_of(folder, kind, split) is not None:
            return {name: file for name in SPLIT_WORDS if (file := _list_of(folder, kind, name)) is not None}
    prefixes = [prefix.format(n=kind.removeprefix("k")) for prefix in PREFIXES]
    words = [f"{word}.csv" for word in SPLIT_WORDS[split]]
    raise DatasetError(
        f"{bases[0]}: no list of the {split} split of {kind}. Looked for {', '.join(words)}, also as .txt and after "
        f"{', '.join(prefixes[1:])}, in:\n" + "\n".join(f"  {folder}" for folder in folders) + f"\nExpected:\n{LAYOUT}"
    )


def _paths(clips: list[CsvClip], on_disk: OnDisk, file: Path, notes: list[str]) -> list[Path]:
    """The file of each clip; of one that is not on disk, where it would be."""
    fence = Fence(on_disk.folder)
    clips_of_id = Counter(clip.youtube_id for clip in clips)
    paths, absent = [], []
    replaced = shared = doubled = elsewhere = 0
    for clip in clips:
        key = (clip.youtube_id, clip.start, clip.end)
        candidates = on_disk.replaced.get(key) or on_disk.timed.get(key, [])
        replaced += key in on_disk.replaced
        if not candidates and clip.youtube_id in on_disk.untimed:
            if clips_of_id[clip.youtube_id] == 1:
                candidates = on_disk.untimed[clip.youtube_id]
            else:
                shared += 1
        if not candidates:
            name = f"{clip.youtube_id}_{clip.start:06d}_{clip.end:06d}.mp4"
            absent.append(name)
            paths.append(fence.path(name, where=f"{file}:{clip.line}"))
            continue
        of_class = [path for path in candidates if simple_class(path.parent.name) == simple_class(clip.label or "")]
        path = (of_class or candidates)[0]
        doubled += len(candidates) > 1
        elsewhere += path.parent.parent == on_disk.folder and not of_class and key not in on_disk.replaced
        paths.append(path)
    unlisted = on_disk.beside({(clip.youtube_id, clip.start, clip.end) for clip in clips}) if on_disk.of_split else 0
    counted = {
        f"{replaced} videos are from the replacement folder": replaced,
        f"{shared} clips share one file without times in its name with other clips, and count as missing": shared,
        f"{doubled} clips are on disk more than once; the one in the folder of its class is read": doubled,
        f"{elsewhere} videos lie in the folder of another class than the list says; the list is believed": elsewhere,
        f"{unlisted} videos on disk are not listed": unlisted,
    }
    notes.append(f"layout: {on_disk.layout}")
    notes.extend(absent_note(absent, len(clips), on_disk.folder))
    notes.extend(text for text, count in counted.items() if count > 0)
    return paths
