"""Kinetics-400, -600 and -700 as they are downloaded: DeepMind's csv files, and the videos in any usual packing.

    annotations/train.csv    label,youtube_id,time_start,time_end,split[,is_cc]
                             testifying,---QUuC4vJs,84,94,validate
                                           └ id of the video here: ---QUuC4vJs_84_94

Consequence: the csv decides what is listed and what it is called, the disk only what is there; every copy of Kinetics
lacks other videos, so notes and reports say how many. Class names are sorted over all csv files, the same for every
split.
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

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.kinetics_disk import OnDisk, find_videos, simple_class
from vidxfer.pipeline.datasets.paths import SPLIT_WORDS, Fence, clean_text, read_text, split_of_word
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

KINDS = {"k400": 400, "k600": 600, "k700": 700}
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

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
PREFIXES = ("", "kinetics_", "kinetics-{n}_", "kinetics{n}_", "k{n}_")
EXTENSIONS = (".csv", ".txt")
_ID = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Clip:
    """One row: line of the csv, class (None in lists without), YouTube id, first and last second."""

    line: int
    label: str | None
    youtube_id: str
    start: int
    end: int


def load(root: Path, split: str, *, kind: str, labels: Path | None = None) -> Dataset:
    """One split; `labels` is the folder of the csv files, or one of them, where they are not below the root.

    Raises:
        DatasetError: a list is missing or a row of it cannot be meant; or none of the listed videos is on disk.
    """
    bases = _bases(root, kind)
    lists = _find_lists(bases, kind, split, labels)
    notes: list[str] = []
    clips_of = {name: _read(file, name, notes if name == split else []) for name, file in lists.items()}
    class_names = tuple(sorted({clip.label for clips in clips_of.values() for clip in clips if clip.label}))
    label_of = {name: label for label, name in enumerate(class_names)}
    if len(class_names) != KINDS[kind]:
        listed = " and ".join(clean_text(file.name) for file in lists.values())
        notes.append(f"{listed} name {len(class_names)} classes; the whole of {kind} has {KINDS[kind]}")
    unlabelled = next((clip for clip in clips_of[split] if clip.label is None), None)
    if unlabelled is not None:
        raise DatasetError(f"{lists[split]}:{unlabelled.line}: no label; lists of {split} need the column label")
    found = find_videos(bases, split, LAYOUT)
    paths = _paths(clips_of[split], found, lists[split], notes)
    videos = tuple(
        Video(
            id=f"{clip.youtube_id}_{clip.start}_{clip.end}",
            path=path,
            label=label_of[clip.label or ""],
            split=split,
        )
        for clip, path in zip(clips_of[split], paths, strict=True)
    )
    return Dataset(name=kind, root=root, split=split, videos=videos, class_names=class_names, notes=tuple(notes))


def _bases(root: Path, kind: str) -> list[Path]:
    digits = kind.removeprefix("k")
    return [root, *(root / name.format(digits) for name in ("k{}", "kinetics{}", "kinetics-{}", "kinetics_{}"))]


def _find_lists(bases: list[Path], kind: str, split: str, labels: Path | None) -> dict[str, Path]:
    """The list of each split that is there, all from the first folder that has the one asked for."""
    if labels is not None:
        folders = [labels if labels.is_dir() else labels.parent]
    else:
        folders = [folder for base in bases for folder in (base / "annotations", base)]
    prefixes = [prefix.format(n=kind.removeprefix("k")) for prefix in PREFIXES]

    def list_of(folder: Path, split: str) -> Path | None:
        names = (f"{p}{word}{ext}" for word in SPLIT_WORDS[split] for ext in EXTENSIONS for p in prefixes)
        return next((folder / name for name in names if (folder / name).is_file()), None)

    for folder in folders:
        if list_of(folder, split) is not None:
            return {name: file for name in SPLIT_WORDS if (file := list_of(folder, name)) is not None}
    words = [f"{word}.csv" for word in SPLIT_WORDS[split]]
    raise DatasetError(
        f"{bases[0]}: no list of the {split} split of {kind}. Looked for {', '.join(words)}, also as .txt and after "
        f"{', '.join(prefixes[1:])}, in:\n" + "\n".join(f"  {folder}" for folder in folders) + f"\nExpected:\n{LAYOUT}"
    )


def _read(file: Path, split: str, notes: list[str]) -> list[_Clip]:
    """The clips of a list, each once."""
    clips: dict[tuple[str, int, int], _Clip] = {}
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


def _clip(where: str, line: int, cells: dict[str, str]) -> _Clip:
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
    return _Clip(line=line, label=None if label is None else clean_text(label), youtube_id=id_, start=start, end=end)


def _seconds(where: str, name: str, text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e6 or seconds != int(seconds):
        raise DatasetError(f"{where}: {name} is {text!r}, expected whole seconds such as 84")
    return int(seconds)


def _paths(clips: list[_Clip], found: OnDisk, file: Path, notes: list[str]) -> list[Path]:
    """The file of each clip; of one that is not on disk, where it would be."""
    fence = Fence(found.folder)
    clips_of_id = Counter(clip.youtube_id for clip in clips)
    paths, absent = [], []
    replaced = shared = doubled = elsewhere = 0
    for clip in clips:
        key = (clip.youtube_id, clip.start, clip.end)
        candidates = found.replaced.get(key) or found.timed.get(key, [])
        replaced += key in found.replaced
        if not candidates and clip.youtube_id in found.untimed:
            if clips_of_id[clip.youtube_id] == 1:
                candidates = found.untimed[clip.youtube_id]
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
        elsewhere += path.parent.parent == found.folder and not of_class and key not in found.replaced
        paths.append(path)
    unlisted = found.beside({(clip.youtube_id, clip.start, clip.end) for clip in clips}) if found.of_split else 0
    counted = {
        f"{replaced} videos are from the replacement folder": replaced,
        f"{shared} clips share one file without times in its name with other clips, and count as missing": shared,
        f"{doubled} clips are on disk more than once; the one in the folder of its class is read": doubled,
        f"{elsewhere} videos lie in the folder of another class than the list says; the list is believed": elsewhere,
        f"{unlisted} videos on disk are not listed": unlisted,
    }
    notes.append(f"layout: {found.layout}")
    notes.extend(absent_note(absent, len(clips), found.folder))
    notes.extend(text for text, count in counted.items() if count > 0)
    return paths
