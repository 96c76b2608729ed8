"""Something-Something V1 as it was handed out: a folder of jpgs per video, and lists with semicolons.

    something-something-v1-labels.csv       174 names, in no order
    something-something-v1-train.csv        100218;Something falling like a feather or paper
    20bn-something-something-v1/100218/     00001.jpg, 00002.jpg, …: one video, as a folder

Consequence: classes are numbered by their sorted names (as TSM and most papers do); MMAction2 numbers them in the order
of the labels file. Names are what is stored, so that the two cannot be mixed up.
"""

from __future__ import annotations

from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.disk import first_file, first_shelf, folders_in
from vidxfer.pipeline.datasets.names import official_names
from vidxfer.pipeline.datasets.paths import Fence, clean_text, nearest, read_text
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

LAYOUT = """\
  <root>/
  ├── something-something-v1-labels.csv         or in labels/ or annotations/; official names where it is missing
  ├── something-something-v1-train.csv          id;class name, without a header
  ├── something-something-v1-validation.csv
  └── 20bn-something-something-v1/              or videos/, frames/
      ├── 1/00001.jpg, 00002.jpg, …
      └── …"""

FOLDERS = ("20bn-something-something-v1", "videos", "frames", "jpg", ".")
LISTS_IN = (".", "labels", "annotations")
STEM = "something-something-v1-"
_FILE_OF = {"train": "train", "val": "validation", "test": "test"}


def load(root: Path, split: str, *, labels: Path | None = None) -> Dataset:
    """One split; `labels` is the folder of the lists where they are not below the root.

    Raises:
        DatasetError: a list is missing or a row cannot be meant; or none of the folders is there.
    """
    folders = [root / name for name in LISTS_IN] if labels is None else [labels if labels.is_dir() else labels.parent]
    list_ = first_file(
        [folder / f"{STEM}{_FILE_OF[split]}.csv" for folder in folders],
        what=f"list of the {split} split",
        root=root,
        layout=LAYOUT,
    )
    class_names, notes = _class_names(list_.with_name(f"{STEM}labels.csv"))
    label_of = {name: label for label, name in enumerate(class_names)}
    shelf = first_shelf(
        [root / name for name in FOLDERS], folders_in, what="folders of frames", root=root, layout=LAYOUT
    )
    fence = Fence(shelf.folder)
    videos, absent = [], []
    for number, line in enumerate(read_text(list_).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{list_}:{number}"
        id_, divider, name = (part.strip() for part in line.partition(";"))
        if not id_ or "/" in id_ or (split != "test" and not divider):
            raise DatasetError(f"{where}: expected id;class name, found {clean_text(line)[:80]!r}")
        path = shelf.find(id_, at=id_)
        if path is None:
            absent.append(clean_text(id_))
            path = fence.path(id_, where=where)
        label = label_of.get(clean_text(name)) if name else None
        if name and label is None:
            raise DatasetError(
                f"{where}: {clean_text(name)!r} is no class of {STEM}labels.csv{nearest(name, label_of)}"
            )
        videos.append(Video(id=clean_text(id_), path=path, label=label, split=split))
    notes += absent_note(absent, len(videos), shelf.folder)
    return Dataset(
        name="ssv1", root=root, split=split, videos=tuple(videos), class_names=class_names, notes=tuple(notes)
    )


def _class_names(file: Path) -> tuple[tuple[str, ...], list[str]]:
    """Sorted; the official ones where there is no file of labels."""
    if not file.is_file():
        return tuple(sorted(official_names("ssv1"))), [f"{file.name} is not there: the official class names are used"]
    return tuple(sorted(clean_text(line.strip()) for line in read_text(file).splitlines() if line.strip())), []
