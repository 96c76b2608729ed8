"""Which layout: from the words a person gives to one `Dataset`.

kind    root                                   labels
ssv2    the folder with labels/ and videos     the folder of the .json files, when they lie elsewhere
folder  <split>/<class>/*, <class>/*, or *     a table file,label, when folders are not classes
csv     a list, or the folder of the videos    the list, when the root is only the folder of the videos
k400    the folder with annotations/ and train/, val/; k600 and k700 the same; labels: the folder of the csv files
"""

from __future__ import annotations

from pathlib import Path

from vidxfer.pipeline.datasets import csvlist, folder, kinetics, ssv2
from vidxfer.pipeline.datasets.base import Dataset, check_val_fraction
from vidxfer.pipeline.datasets.paths import nearest
from vidxfer.pipeline.errors import DatasetError, UsageError

KINDS = ("ssv2", "folder", "csv", *kinetics.KINDS)
SPLITS = ("train", "val")


def load_dataset(
    kind: str, root: Path, split: str, *, labels: Path | None = None, val_fraction: float = 0.2
) -> Dataset:
    """Read which videos a split has and what their labels mean. No video is opened.

    Args:
        kind: one of `KINDS`.
        root: see the table above.
        split: "train" or "val".
        labels: see the table above.
        val_fraction: share of the videos that go to "val" where the data set has no splits of its own.

    Raises:
        UsageError: a kind, split or share that does not exist.
        DatasetError: what is on disk is not that layout; the text lists every path that was tried.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown data set kind {kind!r}{nearest(kind, KINDS)}. Known: {', '.join(KINDS)}.")
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}{nearest(split, SPLITS)}. Known: {', '.join(SPLITS)}.")
    check_val_fraction(val_fraction)
    root = root.expanduser().absolute()
    labels = None if labels is None else labels.expanduser().absolute()
    if not root.exists():
        raise DatasetError(f"{root}: no such file or folder. The {kind} layout is:\n{_LAYOUTS[kind]}")
    if labels is not None and not labels.exists():
        raise DatasetError(f"{labels}: no such file or folder (given as labels)")
    if kind == "csv":
        return csvlist.load(root, split, labels=labels, val_fraction=val_fraction)
    if not root.is_dir():
        raise DatasetError(f"{root}: is a file, but the {kind} layout is a folder:\n{_LAYOUTS[kind]}")
    if kind == "ssv2":
        return ssv2.load(root, split, labels=labels)
    if kind in kinetics.KINDS:
        return kinetics.load(root, split, kind=kind, labels=labels)
    return folder.load(root, split, labels=labels, val_fraction=val_fraction)


def layout_of(kind: str) -> str:
    """What must lie in the root and where it comes from, as a drawing; empty for a kind that does not exist."""
    return _LAYOUTS.get(kind, "")


_LAYOUTS = {
    "ssv2": ssv2.LAYOUT,
    "folder": folder.LAYOUT,
    "csv": csvlist.LAYOUT,
    **dict.fromkeys(kinetics.KINDS, kinetics.LAYOUT),
}
