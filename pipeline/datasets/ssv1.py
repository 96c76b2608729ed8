"""Something-Something V1 and Jester as they were handed out: a folder of jpgs per video, and lists with semicolons.

    something-something-v1-labels.csv       174 names, in no order; jester-v1-labels.csv 27
    something-something-v1-train.csv        100218;Something falling like a feather or paper
    20bn-something-something-v1/100218/     00001.jpg, 00002.jpg, …: one video, as a folder; or 100218.mp4, .webm

Consequence: classes are numbered by their sorted names (as TSM and most papers do); MMAction2 numbers them in the order
of the labels file. Names are what is stored, so that the two cannot be mixed up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.disk import first_file, first_shelf, folders_in, videos_below
from vidxfer.pipeline.datasets.names import COUNTS, by_look, looks_like, official_names
from vidxfer.pipeline.datasets.paths import Fence, clean_text, nearest, read_text
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

STEMS = {"ssv1": "something-something-v1", "jester": "jester-v1"}
"""How the files of each set begin."""

LAYOUT = """\
  <root>/
  ├── something-something-v1-labels.csv         or in labels/ or annotations/; official names where it is missing
  ├── something-something-v1-train.csv          id;class name, without a header
  ├── something-something-v1-validation.csv
  └── 20bn-something-something-v1/              or videos/, frames/
      ├── 1/00001.jpg, 00002.jpg, …
      └── …"""
LAYOUT_JESTER = LAYOUT.replace(STEMS["ssv1"], STEMS["jester"]).replace("official names", "those of the lists")

FOLDERS = ("videos", "frames", "jpg", ".")
LISTS_IN = (".", "labels", "annotations")
_FILE_OF = {"train": "train", "val": "validation", "test": "test"}


def load(root: Path, split: str, *, kind: str = "ssv1", labels: Path | None = None) -> Dataset:
    """One split; `labels` is the folder of the lists where they are not below the root.

    Raises:
        DatasetError: a list is missing or a row cannot be meant; or none of the videos is there.
    """
    stem, layout = STEMS[kind], LAYOUT if kind == "ssv1" else LAYOUT_JESTER
    folders = [root / name for name in LISTS_IN] if labels is None else [labels if labels.is_dir() else labels.parent]
    list_ = first_file(
        [folder / f"{stem}-{_FILE_OF[split]}.csv" for folder in folders],
        what=f"list of the {split} split",
        root=root,
        layout=layout,
    )
    rows_of = {name: _rows(file) for name, file in _lists(list_, stem).items()}
    class_names, notes = _class_names(kind, list_.with_name(f"{stem}-labels.csv"), rows_of)
    label_of = by_look(class_names)
    places = [root / f"20bn-{stem}", *(root / name for name in FOLDERS)]
    shelf = first_shelf(places, _videos_in, what="videos or folders of frames", root=root, layout=layout)
    fence = Fence(shelf.folder)
    videos, absent = [], []
    for where, id_, name in rows_of[split]:
        path = shelf.find(id_, listed=id_)
        if path is None:
            absent.append(clean_text(id_))
            path = fence.path(id_, where=where)
        label = label_of.get(looks_like(clean_text(name))) if name else None
        if name and label is None:
            raise DatasetError(
                f"{where}: {clean_text(name)!r} is no class of {stem}-labels.csv{nearest(name, class_names)}"
            )
        videos.append(Video(id=clean_text(id_), path=path, label=label, split=split))
    notes += absent_note(absent, len(videos), shelf.folder)
    return Dataset(name=kind, root=root, split=split, videos=tuple(videos), class_names=class_names, notes=tuple(notes))


def _lists(list_: Path, stem: str) -> dict[str, Path]:
    """The lists beside one, by split."""
    beside = {split: list_.with_name(f"{stem}-{name}.csv") for split, name in _FILE_OF.items()}
    return {split: file for split, file in beside.items() if file.is_file()}


def _rows(file: Path) -> list[tuple[str, str, str]]:
    """Place, id and class name of each line; only test lists lack names."""
    rows = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        id_, divider, name = (part.strip() for part in line.partition(";"))
        if not id_ or "/" in id_ or (not file.stem.endswith("-test") and not divider):
            raise DatasetError(f"{file}:{number}: expected id;class name, found {clean_text(line)[:80]!r}")
        rows.append((f"{file}:{number}", id_, name))
    return rows


def _videos_in(folder: Path) -> Iterator[Path]:
    yield from folders_in(folder)
    yield from videos_below(folder, Fence(folder), 0)


def _class_names(
    kind: str, file: Path, rows_of: dict[str, list[tuple[str, str, str]]]
) -> tuple[tuple[str, ...], list[str]]:
    """Sorted; where there is no file of labels the official ones, or those that the lists name."""
    if file.is_file():
        return tuple(sorted(clean_text(line.strip()) for line in read_text(file).splitlines() if line.strip())), []
    if kind in COUNTS:
        return tuple(sorted(official_names(kind))), [f"{file.name} is not there: the official class names are used"]
    named = {clean_text(name) for rows in rows_of.values() for _, _, name in rows if name}
    return tuple(sorted(named)), [f"{file.name} is not there: the class names of the lists are used"]
