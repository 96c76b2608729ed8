"""Which layout: from the words a person gives to one `Dataset`.

kind      root                                   labels
ssv2      the folder with labels/ and videos     the folder of the .json files, or a list `id frames label`
ssv1      the folder with the lists and folders of frames; jester the same
k400      the folder with annotations/ and train/, val/; k600 and k700 the same; labels: the csv files, or a list
ucf101    the folder with ucfTrainTestlist/ and UCF-101/; hmdb51 the same; three folds each
epic100   the folder with the csv files and EPIC-KITCHENS/
diving48  the folder with the .json files and rgb/
folder    <split>/<class>/*, or <class>/*        a table file,label, when folders are not classes
csv       a list, or the folder of the videos    the list, when the root is only the folder of the videos
auto      any of these                           as that one has it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vidxfer.pipeline.datasets import csvlist, diving48, epic, folder, hmdb51, kinetics, ssv1, ssv2, ucf101
from vidxfer.pipeline.datasets.base import Dataset, check_val_fraction
from vidxfer.pipeline.datasets.factors import with_factors
from vidxfer.pipeline.datasets.paths import nearest
from vidxfer.pipeline.datasets.recognise import recognise
from vidxfer.pipeline.errors import DatasetError, UsageError

AUTO = "auto"
SPLITS = ("train", "val", "test")
FOLDED = {"ucf101": ucf101.FOLDS, "hmdb51": hmdb51.FOLDS}
"""Kinds that come in several pairs of train and val."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What `load_dataset` was asked for, every path absolute."""

    kind: str
    root: Path
    split: str
    labels: Path | None
    val_fraction: float
    fold: int


_ADAPTERS: dict[str, tuple[Callable[[_Asked], Dataset], str]] = {
    "ssv2": (lambda a: ssv2.load(a.root, a.split, labels=a.labels), ssv2.LAYOUT),
    "ssv1": (lambda a: ssv1.load(a.root, a.split, labels=a.labels), ssv1.LAYOUT),
    "jester": (lambda a: ssv1.load(a.root, a.split, kind="jester", labels=a.labels), ssv1.LAYOUT_JESTER),
    **dict.fromkeys(
        kinetics.CLASSES_OF,
        (lambda a: kinetics.load(a.root, a.split, kind=a.kind, labels=a.labels), kinetics.LAYOUT),
    ),
    "ucf101": (lambda a: ucf101.load(a.root, a.split, fold=a.fold, labels=a.labels), ucf101.LAYOUT),
    "hmdb51": (lambda a: hmdb51.load(a.root, a.split, fold=a.fold, labels=a.labels), hmdb51.LAYOUT),
    "epic100": (lambda a: epic.load(a.root, a.split, labels=a.labels), epic.LAYOUT),
    "diving48": (lambda a: diving48.load(a.root, a.split, labels=a.labels), diving48.LAYOUT),
    "folder": (
        lambda a: folder.load(a.root, a.split, labels=a.labels, val_fraction=a.val_fraction),
        folder.LAYOUT,
    ),
    "csv": (
        lambda a: csvlist.load(a.root, a.split, labels=a.labels, val_fraction=a.val_fraction),
        csvlist.LAYOUT,
    ),
}

KINDS = tuple(_ADAPTERS)
WITH_TEST = ("ssv2", "ssv1", "jester", *kinetics.CLASSES_OF, "epic100", "folder", "csv")
"""Kinds with a third split, which may lack labels."""


def load_dataset(
    kind: str,
    root: Path,
    split: str,
    *,
    labels: Path | None = None,
    val_fraction: float = 0.2,
    fold: int | None = None,
) -> Dataset:
    """Read which videos a split has and what their labels mean. No video is opened.

    Args:
        kind: one of `KINDS`, or "auto": what lies in the root decides, and a note says why.
        root: see the table above.
        split: "train" or "val"; "test" where a set has a third list.
        labels: see the table above.
        val_fraction: share of the videos that go to "val" where the data set has no splits of its own.
        fold: 1, 2 or 3 of UCF101 and HMDB51; None: 1.

    Raises:
        UsageError: a kind, split, fold or share that does not exist.
        DatasetError: what is on disk is not that layout; the text lists every path that was tried.
    """
    if kind not in (AUTO, *KINDS):
        known = (AUTO, *KINDS)
        raise UsageError(f"unknown data set kind {kind!r}{nearest(kind, known)}. Known: {', '.join(known)}.")
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}{nearest(split, SPLITS)}. Known: {', '.join(SPLITS)}.")
    check_val_fraction(val_fraction)
    root = root.expanduser().absolute()
    labels = None if labels is None else labels.expanduser().absolute()
    if not root.exists():
        raise DatasetError(f"{root}: no such file or folder." + _layout_sentence(kind))
    if labels is not None and not labels.exists():
        raise DatasetError(f"{labels}: no such file or folder (given as labels)")
    notes: tuple[str, ...] = ()
    if kind == AUTO:
        recognised = recognise(root, labels)
        kind, notes = recognised.kind, (str(recognised),)
    if kind != "csv" and not root.is_dir():
        raise DatasetError(f"{root}: is a file, but the {kind} layout is a folder:\n{_ADAPTERS[kind][1]}")
    _check_fold(kind, fold)
    if split == "test" and kind not in WITH_TEST:
        raise UsageError(f"{kind} has no split test beside train and val; its test list is val")
    asked = _Asked(kind=kind, root=root, split=split, labels=labels, val_fraction=val_fraction, fold=fold or 1)
    dataset = with_factors(_ADAPTERS[kind][0](asked))
    return replace(dataset, notes=(*notes, *dataset.notes)) if notes else dataset


def resolve_kind(kind: str, root: Path, labels: Path | None) -> str:
    """The kind itself; of "auto" what lies in the root. What a cache remembers must not change with the folder.

    Raises:
        DatasetError: nothing is recognised.
    """
    return recognise(root, labels).kind if kind == AUTO else kind


def layout_of(kind: str) -> str:
    """What must lie in the root and where it comes from, as a drawing; empty for a kind that does not exist."""
    return _ADAPTERS[kind][1] if kind in _ADAPTERS else ""


def _layout_sentence(kind: str) -> str:
    return f" The {kind} layout is:\n{layout_of(kind)}" if kind != AUTO else ""


def _check_fold(kind: str, fold: int | None) -> None:
    if fold is not None and fold not in FOLDED.get(kind, ()):
        known = ", ".join(f"{name} 1 to {len(folds)}" for name, folds in FOLDED.items())
        raise UsageError(f"{kind} has no fold {fold}. Folds: {known}.")
