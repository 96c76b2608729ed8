"""One split of a labelled video set, whatever its layout on disk.

    ssv2 ─┐
    folder ├──▶ Dataset(videos, class_names) ──▶ plan, extract, train
    csv  ─┘        └ fingerprint: ids and labels, never paths, so that a cache survives a move of the videos

Consequence: ids are the contract between the videos and the cache; two videos of one id are refused here, once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from vidxfer.pipeline.datasets.paths import inside
from vidxfer.pipeline.errors import DatasetError, UsageError
from vidxfer.pipeline.shapes import Video

__all__ = ["Dataset", "absent_note", "check_val_fraction", "falls_into_val", "inside"]

_SHOWN = 3
"""How many culprits a message names."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Dataset:
    """The videos of one split and what their labels mean.

    Attributes:
        name: the layout it was read as: "ssv2", "folder" or "csv".
        root: the folder that every path lies in.
        split: "train" or "val".
        videos: in the order of the list, or sorted by id.
        class_names: position = label. The same for every split of a data set.
        notes: what a person should know, one sentence each ("37 listed videos are not on disk").
        factors: what a class is made of: name of the factor -> its value for each class, as in
            {"verb": ("take", "take", …), "noun": ("plate", "cup", …)}. Scores then come per factor too. Says nothing
            that the class names do not say, and is no part of the fingerprint.

    Raises:
        DatasetError: an id occurs twice, a label has no class name, or a factor has not one value per class.
    """

    name: str
    root: Path
    split: str
    videos: tuple[Video, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        repeated = [id_ for id_, count in Counter(video.id for video in self.videos).items() if count > 1]
        if repeated:
            raise DatasetError(
                f"{self.root}: {len(repeated)} ids of the {self.split} split occur more than once: "
                f"{_first(repeated)}. Every video or segment needs an id of its own."
            )
        classes = len(self.class_names)
        wrong = [f"{video.id!r} has {video.label}" for video in self.videos if not _fits(video.label, classes)]
        if wrong:
            raise DatasetError(
                f"{self.root}: {len(wrong)} labels of the {self.split} split are not among the {classes} classes: "
                + ", ".join(wrong[:_SHOWN])
            )
        twice = [name for name, count in Counter(self.class_names).items() if count > 1]
        if twice:
            raise DatasetError(f"{self.root}: class names occur more than once: {_first(twice)}")
        uneven = {name: len(values) for name, values in self.factors.items() if len(values) != classes}
        if uneven:
            raise DatasetError(f"{self.root}: {classes} classes, but factors with other numbers of values: {uneven}")

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        return f"Dataset({self.name} {self.split}: {len(self.videos)} videos, {len(self.class_names)} classes)"

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over split, class names, ids, labels and segments. Order and paths do not matter."""
        rows = sorted([v.id, v.label, v.start_seconds, v.end_seconds, *_frames(v)] for v in self.videos)
        text = json.dumps([self.split, self.class_names, rows], ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def take(self, count: int) -> Dataset:
        """`count` videos spread evenly over the classes, in their old order; the same ones every time.

        Taken at even distances from the videos sorted by label: a plain every-k-th would take one class only wherever
        a list goes round the classes in a step that divides k.

        Raises:
            UsageError: `count` is below 1.
        """
        if count < 1:
            raise UsageError(f"a limit of {count} videos leaves nothing; give at least 1")
        total = len(self.videos)
        if count >= total:
            return self
        by_label = sorted(range(total), key=lambda row: -1 if (label := self.videos[row].label) is None else label)
        rows = sorted(by_label[(2 * place + 1) * total // (2 * count)] for place in range(count))
        note = f"limited to {count} of {total} {self.split} videos"
        return replace(self, videos=tuple(self.videos[row] for row in rows), notes=(*self.notes, note))


def check_val_fraction(val_fraction: float) -> None:
    """Refuse a share that would leave one of the two splits empty by definition.

    Raises:
        UsageError: not strictly between 0 and 1.
    """
    if not 0.0 < val_fraction < 1.0:
        raise UsageError(f"the share of videos for validation must lie between 0 and 1, not {val_fraction}")


def falls_into_val(key: str, val_fraction: float) -> bool:
    """Whether `key` belongs to the validation share of a set that comes without splits.

    Depends on the key alone: adding or removing other videos moves nobody across.
    """
    digest = hashlib.sha256(b"vidxfer split 0\n" + key.encode()).digest()
    return int.from_bytes(digest[:8], "big") < val_fraction * 2**64


def absent_note(absent: list[str], listed: int, folder: Path) -> tuple[str, ...]:
    """The note about listed videos that are not on disk; none when all are there.

    Raises:
        DatasetError: not one of them is there: then the folder is wrong, not the videos.
    """
    if not absent:
        return ()
    if len(absent) == listed:
        raise DatasetError(
            f"none of the {listed} listed videos is on disk. Looked in {folder} for {_first(absent)}. "
            "Is this the folder that the list means?"
        )
    return (f"{len(absent)} of {listed} listed videos are not on disk: {_first(absent)}",)


def unseen_note(
    train: Iterable[int | None], other: Iterable[int | None], names: tuple[str, ...], split: str
) -> list[str]:
    """The note about classes that have videos in `split` and none in train: no head can learn them."""
    unseen = sorted({names[label] for label in set(other) - set(train) if label is not None})
    return [f"{len(unseen)} classes have videos in {split} and none in train: {_first(unseen)}"] if unseen else []


def _frames(video: Video) -> list[object]:
    """What a segment that is counted in frames adds to the fingerprint; other videos have the one of 0.1.0."""
    return [] if video.frames is None else [[video.frames.start, video.frames.end, video.frames.fps]]


def _fits(label: int | None, classes: int) -> bool:
    return label is None or 0 <= label < classes


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more
