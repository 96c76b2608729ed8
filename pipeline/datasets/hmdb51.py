"""HMDB51 as it is downloaded: class folders of .avi files, and one list per class and fold.

    testTrainMulti_7030_splits/brush_hair_test_split1.txt     April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1
                               └ class                                                     0 unused, 1 train, 2 test ┘
    brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi      names hold #, &, (, blanks

Consequence: the class comes from the list's name, val of a fold is its test rows, and what a fold does not use is
counted in a note. Class names are written as words ("brush hair") and numbered in the order of the words: lists that
sort by file name swap "kick" and "kick ball".
"""

from __future__ import annotations

from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.disk import first_shelf, videos_below
from vidxfer.pipeline.datasets.names import COUNTS, spoken
from vidxfer.pipeline.datasets.paths import Fence, clean_text, list_folder, read_text
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

LAYOUT = """\
  <root>/
  ├── testTrainMulti_7030_splits/                or annotations/, splits/, labels/, the root itself
  │   ├── brush_hair_test_split1.txt             one per class and fold (--fold)
  │   └── …
  └── hmdb51_org/                                or videos/, the root itself
      └── brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi"""

FOLDERS = ("hmdb51_org", "hmdb51", "HMDB51", "videos", ".")
LISTS_IN = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "annotations", "splits",
            "labels", ".")  # fmt: skip
FOLDS = (1, 2, 3)
_MARK = {"train": "1", "val": "2"}


def load(root: Path, split: str, *, fold: int = 1, labels: Path | None = None) -> Dataset:
    """One split of one fold; `labels` is the folder of the lists where they are not below the root.

    Raises:
        DatasetError: a list is missing or a row cannot be meant; or none of the videos is on disk.
    """
    lists = _lists(root, fold, labels)
    shelf = first_shelf(
        [root / name for name in FOLDERS],
        lambda folder: videos_below(folder, Fence(folder), 2),
        what="videos",
        root=root,
        layout=LAYOUT,
    )
    fence = Fence(shelf.folder)
    class_names = tuple(sorted(spoken(name) for name in lists))
    label_of = {name: label for label, name in enumerate(class_names)}
    videos, absent, unused = [], [], 0
    for name, file in sorted(lists.items()):
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            listed, _, mark = line.strip().rpartition(" ")
            listed = listed.strip()
            if mark not in ("0", "1", "2") or not listed:
                raise DatasetError(f"{file}:{number}: expected 'file 0', '1' or '2', found {clean_text(line)!r}")
            unused += mark == "0"
            if mark != _MARK[split]:
                continue
            stem = Path(listed).stem
            path = shelf.find(stem, listed=f"{name}/{listed}")
            if path is None:
                absent.append(clean_text(listed))
                path = fence.path(f"{name}/{listed}", where=f"{file}:{number}")
            videos.append(Video(id=clean_text(stem), path=path, label=label_of[spoken(name)], split=split))
    notes = [f"fold {fold} of 3; it leaves {unused} videos unused", *absent_note(absent, len(videos), shelf.folder)]
    if len(lists) != COUNTS["hmdb51"]:
        notes.append(f"lists of {len(lists)} classes; the whole of hmdb51 has {COUNTS['hmdb51']}")
    return Dataset(
        name="hmdb51", root=root, split=split, videos=tuple(videos), class_names=class_names, notes=tuple(notes)
    )


def _lists(root: Path, fold: int, labels: Path | None) -> dict[str, Path]:
    """The lists of a fold by class, from the first folder that has any."""
    folders = [root / name for name in LISTS_IN] if labels is None else [labels if labels.is_dir() else labels.parent]
    ending = f"_test_split{fold}.txt"
    for folder in filter(Path.is_dir, folders):
        names = [entry.name for entry in list_folder(folder) if entry.name.endswith(ending) and entry.is_file()]
        if names:
            return {clean_text(name.removesuffix(ending)): folder / name for name in names}
    listed = "\n".join(f"  {folder}/*{ending}" for folder in folders)
    raise DatasetError(f"{root}: no lists of fold {fold}. Looked for:\n{listed}\nExpected:\n{LAYOUT}")
