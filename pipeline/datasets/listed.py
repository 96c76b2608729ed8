"""A well-known set by the list of another toolkit: numbers in the list, the official names here, the disk as it is.

    --dataset k400 --labels kinetics_val.txt     0wR5jVB-WPk.mp4 0           class abseiling
    --dataset ssv2 --labels val_videofolder.txt  78687 54 19                 id, frames (not trusted), class

Consequence: the classes of such a list have names, so a text encoder can read them; videos are found by id wherever
they lie, as files or as folders of frames. The list of the other split is looked for beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.columns import Row
from vidxfer.pipeline.datasets.csvlist import segment_of
from vidxfer.pipeline.datasets.lists import find_lists, rows_in
from vidxfer.pipeline.datasets.names import by_look, looks_like, official_names
from vidxfer.pipeline.datasets.paths import Fence, clean_text, is_video_name, nearest
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

Find = Callable[[str, str], tuple[str, Path] | None]
"""From a path as listed and its stem to the id and the path of a video on disk; None: it is not there."""


def load_listed(kind: str, root: Path, split: str, *, labels: Path, folder: Path, find: Find) -> Dataset:
    """One split of `kind` by a list.

    Args:
        kind: whose class names the numbers mean.
        labels: the list; the other split's lies beside it.
        folder: where the videos lie.
        find: see `Find`.

    Raises:
        DatasetError: no list of the split, a row that cannot be meant, or none of the videos is there.
    """
    lists = find_lists(labels)
    file = lists.get(split) or lists.get("all")
    if file is None:
        raise DatasetError(f"{labels}: no list of {split} beside it, only of {', '.join(sorted(lists))}")
    names = official_names(kind)
    label_of = by_look(names)
    fence = Fence(folder)
    notes = [f"listed by {clean_text(file.name)}; numbers mean the official class names"]
    videos, absent = [], []
    rows = rows_in(file, folder, notes)
    if split not in lists and not any(row.split for row in rows):
        raise DatasetError(
            f"{file}: neither its name nor a column says of which split it is. Put train, val or test into its name "
            f"({file.stem}_{split}{file.suffix}), or add a column split."
        )
    for row in rows:
        if row.split not in (None, split):
            continue
        stem = Path(row.path).stem if is_video_name(row.path) else Path(row.path).name
        id_and_path = find(row.path, stem)
        if id_and_path is None:
            absent.append(clean_text(row.path))
            id_and_path = stem, fence.path(row.path, where=row.where)
        segment = segment_of(row)
        videos.append(
            Video(
                id=clean_text(row.id or id_and_path[0]),
                path=id_and_path[1],
                label=_label(row, label_of),
                split=split,
                start_seconds=segment.start_seconds,
                end_seconds=segment.end_seconds,
                frames=segment.frames,
            )
        )
    if not videos:
        raise DatasetError(f"{file}: no rows of {split}")
    notes += absent_note(absent, len(videos), folder)
    return Dataset(name=kind, root=root, split=split, videos=tuple(videos), class_names=names, notes=tuple(notes))


def _label(row: Row, label_of: dict[str, int]) -> int | None:
    if row.label is None:
        return None
    name = clean_text(row.label)
    if looks_like(name) in label_of:
        return label_of[looks_like(name)]
    if name.isdecimal() and int(name) < len(label_of):
        return int(name)
    raise DatasetError(f"{row.where}: label {name!r} is none of the {len(label_of)} classes{nearest(name, label_of)}")
