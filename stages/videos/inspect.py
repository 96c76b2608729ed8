"""Look at a data set before anything is computed: counts, holes, repeats, mirror classes, fingerprint.

    every split that is there ─▶ counts per class ─▶ one walk of the disk ─▶ repeats between splits ─▶ Inspection
                                                                             └ and against another set: K400's val
                                                                               lies largely inside K700's train
No video is opened: `vidxfer data check` does that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset, unseen_note
from vidxfer.pipeline.datasets.load import AUTO, SPLITS, WITH_TEST
from vidxfer.pipeline.datasets.recognise import recognise
from vidxfer.pipeline.datasets.survey import Repeat, Some, files_on_disk, left_over, missing, repeats
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.video.mirror import flip_pairs
from vidxfer.stages.settings import DataSource


@dataclass(frozen=True, kw_only=True)
class InspectRequest:
    """What to look at, and a second set to compare it with."""

    data: DataSource
    against: DataSource | None = None


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """One split.

    Attributes:
        videos: rows.
        files: different files or folders.
        labelled: rows with a label.
        per_class: name -> rows, the largest first, classes without rows included.
        smallest, median, largest: rows per class, classes without rows included.
        missing: rows whose file is not on disk.
        fingerprint: of the split.
        notes: of the adapter.
    """

    split: str
    videos: int
    files: int
    labelled: int
    per_class: dict[str, int]
    smallest: int
    median: float
    largest: int
    missing: Some
    fingerprint: str
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A data set.

    Attributes:
        kind, root: as it was read.
        classes: number.
        factors: name -> number of values.
        splits: those that are there.
        absent: train or val -> why it could not be read.
        left_over: on disk, listed nowhere.
        repeats: between splits, and against the other set.
        flip_pairs: classes that change places in a mirror, by their names.
    """

    kind: str
    root: Path
    classes: int
    factors: dict[str, int]
    splits: tuple[SplitCounts, ...]
    absent: dict[str, str]
    left_over: Some
    repeats: tuple[Repeat, ...]
    flip_pairs: tuple[tuple[str, str], ...]


def inspect(request: InspectRequest) -> Inspection:
    """Read every split, walk the disk once, compare.

    Raises:
        UsageError, DatasetError: no root, or neither train nor val can be read.
    """
    datasets, absent = splits_there(request.data)
    first = datasets[0]
    on_disk = files_on_disk(datasets, first.root)
    shared = [repeat for a, b in combinations(datasets, 2) for repeat in repeats(b, a, there_name=a.split)]
    if request.against is not None:
        others, _ = splits_there(request.against)
        shared += [
            repeat for own in datasets for other in others
            for repeat in repeats(own, other, there_name=f"{other.name} {other.split}")
        ]  # fmt: skip
    pairs = flip_pairs(first.class_names)
    return Inspection(
        kind=first.name,
        root=first.root,
        classes=len(first.class_names),
        factors={name: len(set(values)) for name, values in first.factors.items()},
        splits=tuple(counts_of(dataset, on_disk) for dataset in datasets),
        absent=absent,
        left_over=left_over(datasets, first.root, on_disk),
        repeats=tuple(shared),
        flip_pairs=tuple((first.class_names[a], first.class_names[b]) for a, b in pairs.items() if a < b),
    )


def splits_there(data: DataSource) -> tuple[list[Dataset], dict[str, str]]:
    """Every split that can be read, and why train or val cannot.

    Raises:
        UsageError: no root. DatasetError: neither train nor val can be read.
    """
    noted: tuple[str, ...] = ()
    if data.root is not None and data.kind == AUTO:
        recognised = recognise(data.root, data.labels)
        data, noted = replace(data, kind=recognised.kind), (str(recognised),)
    datasets: list[Dataset] = []
    absent: dict[str, str] = {}
    for split in SPLITS if data.kind in WITH_TEST else SPLITS[:2]:
        try:
            dataset = data.load(split)
        except DatasetError as error:  # a missing root is a UsageError, and passes
            if split != "test":
                absent[split] = str(error)
        else:
            if datasets and datasets[0].split == "train":
                trained, scored = ([video.label for video in known.videos] for known in (datasets[0], dataset))
                note = unseen_note(trained, scored, dataset.class_names, split)
                dataset = replace(dataset, notes=tuple(dict.fromkeys((*dataset.notes, *note))))
            datasets.append(replace(dataset, notes=(*noted, *dataset.notes)))
            noted = ()
    if not datasets:
        raise DatasetError(next(iter(absent.values())))
    return datasets, absent


def counts_of(dataset: Dataset, on_disk: set[str]) -> SplitCounts:
    """Rows per class, and what is missing."""
    counted = Counter(video.label for video in dataset.videos if video.label is not None)
    names = dataset.class_names
    order = sorted(range(len(names)), key=lambda label: (-counted[label], names[label]))
    rows = sorted(counted[label] for label in range(len(names))) or [0]
    middle = len(rows) // 2
    return SplitCounts(
        split=dataset.split,
        videos=len(dataset),
        files=len({video.path for video in dataset.videos}),
        labelled=counted.total(),
        per_class={names[label]: counted[label] for label in order},
        smallest=rows[0],
        median=rows[middle] if len(rows) % 2 else (rows[middle - 1] + rows[middle]) / 2,
        largest=rows[-1],
        missing=missing(dataset, on_disk),
        fingerprint=dataset.fingerprint,
        notes=dataset.notes,
    )
