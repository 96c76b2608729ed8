"""EPIC-KITCHENS-100 as it is downloaded: segments of long videos, by time, each a verb and a noun.

    EPIC_100_train.csv    P01_11_0,P01,P01_11,nan,00:00:00.00,00:00:01.89,1,113,take plate,take,0,plate,2,['plate'],[2]
                          └ id                └ start, stop ──▶ seconds     └ never used   └ verb   └ noun
    EPIC-KITCHENS/P01/videos/P01_101.MP4      2018's videos have two digits, the extension's three
    action = (verb class, noun class)  ──▶  class "take plate", factors verb "take" and noun "plate"

Consequence: segments follow the time stamps, never `start_frame`, which counts frames extracted at 50 or 60 per second
from videos of five other rates. Top-1 over classes is the action (both right); verb and noun are scored as marginals.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.disk import first_file, first_shelf, videos_below
from vidxfer.pipeline.datasets.paths import Fence, clean_text, read_text
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

LAYOUT = """\
  <root>/
  ├── EPIC_100_train.csv                 or in annotations/, epic-kitchens-100-annotations/
  ├── EPIC_100_validation.csv            EPIC_100_test_timestamps.csv: the test split, without labels
  ├── EPIC_100_verb_classes.csv          id,key,…: names of the verbs; the commonest words where it is missing
  ├── EPIC_100_noun_classes.csv
  └── EPIC-KITCHENS/                     or the root itself; archives of frames (.tar) are not read
      └── P01/videos/P01_01.MP4, P01_101.MP4"""

FOLDERS = ("EPIC-KITCHENS", "EPIC_KITCHENS_2018", "EPIC-KITCHENS-100", "videos", ".")
LISTS_IN = (".", "annotations", "epic-kitchens-100-annotations", "labels")
MOST_DEEP = 4
"""Folders between those above and a video: 2018's packing is videos/train/P01/."""

_FILE_OF = {
    "train": ("EPIC_100_train.csv",),
    "val": ("EPIC_100_validation.csv",),
    "test": ("EPIC_100_test_timestamps.csv", "EPIC_100_test.csv"),
}
_COLUMNS = ("narration_id", "video_id", "start_timestamp", "stop_timestamp")
_LABELS = ("verb", "verb_class", "noun", "noun_class")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Segment:
    """One row. `action` is (verb class, noun class), None in lists without labels."""

    where: str
    id: str
    video: str
    start_seconds: float
    end_seconds: float
    action: tuple[int, int] | None
    words: tuple[str, str]


def load(root: Path, split: str, *, labels: Path | None = None) -> Dataset:
    """One split; `labels` is the folder of the csv files where they are not below the root.

    Raises:
        DatasetError: a list is missing or a row cannot be meant; or none of the videos is on disk.
    """
    folders = [root / name for name in LISTS_IN] if labels is None else [labels if labels.is_dir() else labels.parent]
    list_ = first_file(
        [folder / name for folder in folders for name in _FILE_OF[split]],
        what=f"list of the {split} split",
        root=root,
        layout=LAYOUT,
    )
    beside = {name: list_.with_name(_FILE_OF[name][0]) for name in ("train", "val")}
    segments_of = {name: list(_read(file)) for name, file in beside.items() if file.is_file()}
    segments = segments_of.get(split) or list(_read(list_))
    every = chain(segments, *segments_of.values())
    actions = sorted({segment.action for segment in every if segment.action})
    verbs, nouns = (_names(list_, kind, place, segments_of) for place, kind in enumerate(("verb", "noun")))
    label_of = {action: label for label, action in enumerate(actions)}
    videos, notes = _videos(root, split, segments, label_of)
    missing = sorted({"train", "val"} - set(segments_of))
    if missing:
        notes.insert(0, f"no list of {', '.join(missing)}: actions are numbered without it")
    return Dataset(
        name="epic100",
        root=root,
        split=split,
        videos=videos,
        class_names=tuple(f"{spoken_verb(verbs[verb])} {spoken_noun(nouns[noun])}" for verb, noun in actions),
        notes=tuple(notes),
        factors={
            "verb": tuple(verbs[verb] for verb, _ in actions),
            "noun": tuple(nouns[noun] for _, noun in actions),
        },
    )


def spoken_verb(key: str) -> str:
    """ "turn-on" -> "turn on"."""
    return key.replace("-", " ")


def spoken_noun(key: str) -> str:
    """ "board:chopping" -> "chopping board": the kind stands behind the colon."""
    return " ".join(reversed(key.split(":")))


def parse_time(where: str, name: str, text: str) -> float:
    """ "00:01:02.50" -> 62.5 seconds.

    Raises:
        DatasetError: not hours:minutes:seconds.
    """
    parts = text.split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        hours = minutes = seconds = math.nan
    total = hours * 3600 + minutes * 60 + seconds
    if not (0 <= minutes < 60 and 0 <= seconds < 60 and 0 <= total < 1e6):
        raise DatasetError(f"{where}: {name} is {text!r}, expected hours:minutes:seconds such as 00:01:02.50")
    return round(total, 6)


def _read(file: Path) -> Iterator[_Segment]:
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""), strict=True)
    absent = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if absent:
        raise DatasetError(f"{file}:1: no column {', '.join(absent)}; expected {', '.join((*_COLUMNS, *_LABELS))}")
    labelled = all(name in (reader.fieldnames or ()) for name in _LABELS)
    try:
        for cells in reader:
            where = f"{file}:{reader.line_num}"
            if None in cells or None in cells.values():
                raise DatasetError(f"{where}: not as many fields as the header has")
            yield _segment(where, cells, labelled=labelled)
    except csv.Error as error:
        raise DatasetError(f"{file}:{reader.line_num}: {error}; is a quote left open?") from error


def _segment(where: str, cells: dict[str, str], *, labelled: bool) -> _Segment:
    start, end = (parse_time(where, name, cells[name]) for name in _COLUMNS[2:])
    if end <= start:
        raise DatasetError(f"{where}: the segment ends at {end:g} s, which is not after its start at {start:g} s")
    action = None
    if labelled:
        numbers = [cells["verb_class"], cells["noun_class"]]
        if not all(number.isdecimal() for number in numbers):
            raise DatasetError(f"{where}: verb_class and noun_class are {numbers}, expected whole numbers")
        action = (int(numbers[0]), int(numbers[1]))
    return _Segment(
        where=where,
        id=clean_text(cells["narration_id"].strip()),
        video=cells["video_id"].strip(),
        start_seconds=start,
        end_seconds=end,
        action=action,
        words=(clean_text(cells.get("verb", "")), clean_text(cells.get("noun", ""))),
    )


def _names(list_: Path, kind: str, place: int, segments_of: dict[str, list[_Segment]]) -> dict[int, str]:
    """The key of each verb or noun class: from the official file, else the words most often written for it."""
    file = list_.with_name(f"EPIC_100_{kind}_classes.csv")
    words: dict[int, Counter[str]] = {}
    for segment in chain.from_iterable(segments_of.values()):
        if segment.action:
            words.setdefault(segment.action[place], Counter())[segment.words[place]] += 1
    names = {number: min(count, key=lambda word: (-count[word], word)) for number, count in words.items()}
    if not file.is_file():
        repeated = Counter(names.values())
        return {number: name if repeated[name] == 1 else f"{name} {number}" for number, name in names.items()}
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""))
    if not {"id", "key"} <= set(reader.fieldnames or ()):
        raise DatasetError(f"{file}:1: expected the columns id and key")
    for cells in reader:
        if not (cells["id"] or "").isdecimal() or not cells["key"]:
            raise DatasetError(f"{file}:{reader.line_num}: expected a number and a name")
        names[int(cells["id"])] = clean_text(cells["key"])
    return names


def _videos(
    root: Path, split: str, segments: list[_Segment], label_of: dict[tuple[int, int], int]
) -> tuple[tuple[Video, ...], list[str]]:
    shelf = first_shelf(
        [root / name for name in FOLDERS],
        lambda folder: videos_below(folder, Fence(folder), MOST_DEEP),
        what="videos (.MP4; frames in .tar archives are not read)",
        root=root,
        layout=LAYOUT,
    )
    fence = Fence(shelf.folder)
    videos, absent = [], []
    for segment in segments:
        path = shelf.find(segment.video)
        if path is None:
            absent.append(segment.id)
            path = fence.path(f"{segment.video.split('_')[0]}/videos/{segment.video}.MP4", where=segment.where)
        videos.append(
            Video(
                id=segment.id,
                path=path,
                label=None if segment.action is None else label_of[segment.action],
                split=split,
                start_seconds=segment.start_seconds,
                end_seconds=segment.end_seconds,
            )
        )
    notes = [f"{len(videos)} segments of {len({segment.video for segment in segments})} videos"]
    if segments and segments[0].action is None:
        notes.append("the list has no labels")
    return tuple(videos), [*notes, *absent_note(absent, len(videos), shelf.folder)]
