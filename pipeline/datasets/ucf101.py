"""UCF101 as it is downloaded: class folders of .avi files, and three pairs of lists.

    ucfTrainTestlist/classInd.txt       1 ApplyEyeMakeup                                    counted from 1
    ucfTrainTestlist/trainlist01.txt    ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1       \\r\\n in some copies
    ucfTrainTestlist/testlist01.txt     ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi         no number: the folder says
    UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi                                 letters in other cases

Consequence: val of fold 1, 2 or 3 is the test list of that number. Class names are written as words ("Apply Eye
Makeup"), since a text encoder reads them.
"""

from __future__ import annotations

import re
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.disk import first_file, first_shelf, videos_below
from vidxfer.pipeline.datasets.names import official_names, spoken
from vidxfer.pipeline.datasets.paths import Fence, clean_text, nearest, read_text
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

LAYOUT = """\
  <root>/
  ├── ucfTrainTestlist/            or annotations/, labels/, the root itself
  │   ├── classInd.txt             official names where it is missing
  │   ├── trainlist01.txt          one pair per fold: 01, 02, 03 (--fold)
  │   └── testlist01.txt           the val split
  └── UCF-101/                     or UCF101/, videos/, the root itself
      └── ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"""

FOLDERS = ("UCF-101", "UCF101", "ucf101", "videos", ".")
LISTS_IN = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "annotations", "labels", ".")
FOLDS = (1, 2, 3)
_FILE_OF = {"train": "trainlist", "val": "testlist"}
_NAME = re.compile(r"v_(?P<class>.+)_g\d+_c\d+", re.IGNORECASE)


def load(root: Path, split: str, *, fold: int = 1, labels: Path | None = None) -> Dataset:
    """One split of one fold; `labels` is the folder of the lists where they are not below the root.

    Raises:
        DatasetError: a list is missing or a row cannot be meant; or none of the videos is on disk.
    """
    folders = [root / name for name in LISTS_IN] if labels is None else [labels if labels.is_dir() else labels.parent]
    list_ = first_file(
        [folder / f"{_FILE_OF[split]}{fold:02d}.txt" for folder in folders],
        what=f"list of the {split} split of fold {fold}",
        root=root,
        layout=LAYOUT,
    )
    names, notes = _class_names(list_.with_name("classInd.txt"))
    number_of = {name.casefold(): number for number, name in enumerate(names)}
    shelf = first_shelf(
        [root / name for name in FOLDERS],
        lambda folder: videos_below(folder, Fence(folder), 2),
        what="videos",
        root=root,
        layout=LAYOUT,
    )
    fence = Fence(shelf.folder)
    videos, absent = [], []
    for number, line in enumerate(read_text(list_).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{list_}:{number}"
        listed, label = _row(where, line.strip(), number_of)
        stem = Path(listed).stem
        path = shelf.find(stem, listed=listed)
        if path is None:
            absent.append(clean_text(listed))
            path = fence.path(listed, where=where)
        videos.append(Video(id=clean_text(stem), path=path, label=label, split=split))
    notes += [f"fold {fold} of 3", *absent_note(absent, len(videos), shelf.folder)]
    return Dataset(
        name="ucf101",
        root=root,
        split=split,
        videos=tuple(videos),
        class_names=tuple(spoken(name) for name in names),
        notes=tuple(notes),
    )


def _class_names(file: Path) -> tuple[tuple[str, ...], list[str]]:
    """By number; the file counts from 1."""
    if not file.is_file():
        return official_names("ucf101"), [f"{file.name} is not there: the official class names are used"]
    names: dict[int, str] = {}
    for line_number, line in enumerate(read_text(file).splitlines(), start=1):
        number, _, name = line.strip().partition(" ")
        if number and (not number.isdecimal() or not name.strip() or int(number) in names):
            raise DatasetError(f"{file}:{line_number}: expected a new number and a name, found {clean_text(line)!r}")
        if number:
            names[int(number)] = clean_text(name.strip())
    if sorted(names) != list(range(1, len(names) + 1)):
        raise DatasetError(f"{file}: {len(names)} classes, but their numbers are not 1 to {len(names)}")
    return tuple(names[number] for number in sorted(names)), []


def _row(where: str, line: str, number_of: dict[str, int]) -> tuple[str, int]:
    """Path as listed, and label: of the folder or the file's name; a number beside it must agree."""
    listed, blank, last = line.rpartition(" ")
    counted = int(last) if blank and last.isdecimal() else None
    listed = listed.strip() if counted is not None else line
    named = _NAME.fullmatch(Path(listed).stem)
    names = [Path(listed).parent.name, *([named["class"]] if named else [])]
    label = next((number_of[name.casefold()] for name in names if name.casefold() in number_of), None)
    if label is None:
        raise DatasetError(
            f"{where}: {clean_text(listed)!r} is of none of the {len(number_of)} classes{nearest(names[0], number_of)}"
        )
    if counted is not None and counted != label + 1:
        raise DatasetError(f"{where}: class number {counted}, but {clean_text(names[0])!r} has {label + 1}")
    return listed, label
