"""Diving48 as it is downloaded: one JSON file per split, and a folder of videos.

    Diving48_V2_train.json    [{"vid_name": "vgEqb7JIdRM_00000", "label": 0, "start_frame": 0, "end_frame": 140}, …]
    Diving48_vocab.json       [["Back", "15som", "05Twis", "FREE"], …]    position = label
    rgb/vgEqb7JIdRM_00000.mp4

Consequence: a class is take-off, somersaults, twists and position: scores come for each of the four too. `start_frame`
is 0 in every released row and `end_frame` the length of the clip: the whole file is read, and anything else refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.disk import first_file, first_shelf, videos_below
from vidxfer.pipeline.datasets.names import official_names
from vidxfer.pipeline.datasets.paths import Fence, clean_text, read_text
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

LAYOUT = """\
  <root>/
  ├── Diving48_V2_train.json       or Diving48_train.json (the first release); also in annotations/, labels/
  ├── Diving48_V2_test.json        the val split
  ├── Diving48_vocab.json          official names where it is missing
  └── rgb/                         or videos/
      └── <vid_name>.mp4"""

FOLDERS = ("rgb", "videos", "Diving48_rgb/rgb", ".")
LISTS_IN = (".", "annotations", "labels")
FACTORS = ("take-off", "somersaults", "twists", "position")
_FILE_OF = {"train": "train", "val": "test"}
_EXAMPLE = '{"vid_name": "…", "label": 0, "start_frame": 0, "end_frame": 140}'


def load(root: Path, split: str, *, labels: Path | None = None) -> Dataset:
    """One split; `labels` is the folder of the JSON files where they are not below the root.

    Raises:
        DatasetError: a file is missing or an entry cannot be meant; or none of the videos is on disk.
    """
    folders = [root / name for name in LISTS_IN] if labels is None else [labels if labels.is_dir() else labels.parent]
    stems = (f"Diving48_V2_{_FILE_OF[split]}.json", f"Diving48_{_FILE_OF[split]}.json")
    list_ = first_file(
        [folder / stem for folder in folders for stem in stems],
        what=f"list of the {split} split",
        root=root,
        layout=LAYOUT,
    )
    class_names, notes = _class_names(list_.with_name("Diving48_vocab.json"))
    shelf = first_shelf(
        [root / name for name in FOLDERS],
        lambda folder: videos_below(folder, Fence(folder), 1),
        what="videos",
        root=root,
        layout=LAYOUT,
    )
    fence = Fence(shelf.folder)
    videos, absent = [], []
    for number, entry in enumerate(_json(list_), start=1):
        where = f"{list_}: entry {number}"
        name, label = _entry(where, entry, len(class_names))
        path = shelf.find(name, listed=f"{name}.mp4")
        if path is None:
            absent.append(clean_text(name))
            path = fence.path(f"{name}.mp4", where=where)
        videos.append(Video(id=clean_text(name), path=path, label=label, split=split))
    notes += absent_note(absent, len(videos), shelf.folder)
    parts = [name.split("+") for name in class_names]
    factored = all(len(part) == len(FACTORS) for part in parts)
    return Dataset(
        name="diving48",
        root=root,
        split=split,
        videos=tuple(videos),
        class_names=class_names,
        notes=tuple(notes),
        factors=dict(zip(FACTORS, zip(*parts, strict=True), strict=True)) if factored else {},
    )


def _json(file: Path) -> list[Any]:
    try:
        table = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"{file}: not JSON: {error}") from error
    if not isinstance(table, list) or not table:
        raise DatasetError(f"{file}: expected a list, found {type(table).__name__}")
    return table


def _entry(where: str, entry: Any, classes: int) -> tuple[str, int]:
    fields = entry if isinstance(entry, dict) else {}
    name, label = fields.get("vid_name"), fields.get("label")
    if not isinstance(name, str) or not name or isinstance(label, bool) or not isinstance(label, int):
        raise DatasetError(f"{where}: expected {_EXAMPLE}, found {clean_text(repr(entry))[:80]}")
    if not 0 <= label < classes:
        raise DatasetError(f"{where}: label {label} is not among the {classes} classes")
    if fields.get("start_frame") not in (None, 0):
        raise DatasetError(
            f"{where}: starts at frame {fields['start_frame']!r}; in the released lists each clip is a file of its own "
            "and starts at 0. Cut the clip, or list it in a csv with start and end in seconds (--dataset csv)."
        )
    return name, label


def _class_names(file: Path) -> tuple[tuple[str, ...], list[str]]:
    if not file.is_file():
        return official_names("diving48"), [f"{file.name} is not there: the official class names are used"]
    table = _json(file)
    if not all(isinstance(parts, list) and all(isinstance(part, str) for part in parts) for parts in table):
        raise DatasetError(f'{file}: expected [["Back", "15som", "05Twis", "FREE"], …]')
    return tuple(clean_text("+".join(parts)) for parts in table), []
