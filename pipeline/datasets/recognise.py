"""Which kind a folder is, by the files that only that kind has: `--dataset auto`.

    root ─▶ ssv2: labels.json?   ssv1: …-labels.csv?   k400: a csv with youtube_id?   …   csv: a list?   folder: videos?
             └ one of them ─▶ that kind, and why         └ two ─▶ an error that names both      └ the last resort

Consequence: a guess is never silent. The note says what was found and what was ruled out; an error lists every kind
that was tried and what it lacked. Nothing is read but the first lines of lists.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.datasets import diving48, epic, hmdb51, kinetics, ssv1, ssv2, ucf101
from vidxfer.pipeline.datasets.disk import is_folder
from vidxfer.pipeline.datasets.lists import LIST_FILES, LIST_STEMS, find_lists, unread_lists
from vidxfer.pipeline.datasets.names import official_names
from vidxfer.pipeline.datasets.paths import (
    clean_text,
    is_litter,
    is_picture_name,
    is_video_name,
    list_folder,
    read_text,
)
from vidxfer.pipeline.datasets.records import is_fiftyone, parsed_json
from vidxfer.pipeline.errors import DatasetError

MOST_FILES_LOOKED_AT = 2000
"""Entries of a folder that are looked at to see whether videos lie in it."""

MOST_DEEP = 3


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a folder was taken for.

    Attributes:
        kind: of the data set.
        because: what was found.
        ruled_out: other kind -> what it lacks.
    """

    kind: str
    because: str
    ruled_out: dict[str, str]

    def __str__(self) -> str:
        others = "; ".join(f"{kind}: {why}" for kind, why in self.ruled_out.items())
        return f"recognised as {self.kind}: {self.because} (ruled out: {others})"


def recognise(root: Path, labels: Path | None = None) -> Recognised:
    """The kind of what lies in a root; `labels` is looked into instead of the root's own folders of lists.

    Raises:
        DatasetError: no kind fits, or several of the specific ones; names each with what it has or lacks.
    """
    root = root.expanduser().absolute()
    labels = None if labels is None else labels.expanduser().absolute()
    evidence: dict[str, str] = {}
    lacks: dict[str, str] = {}
    for kind, marks, wanted in _specific(root, labels):
        mark = next((mark for mark in marks if mark.exists() and not _is_of_another(kind, mark)), None)
        if mark is None:
            lacks[kind] = f"no {wanted}"
        else:
            evidence[kind] = f"{_shown(mark, root)} is there"
    _kinetics(root, labels, evidence, lacks)
    if len(evidence) > 1:
        listed = "\n".join(f"  {kind}: {why}" for kind, why in evidence.items())
        raise DatasetError(f"{root}: may be any of\n{listed}\nName the one that is meant with --dataset.")
    if not evidence:
        _general(root, labels, evidence, lacks)
    if not evidence:
        tried = "\n".join(f"  {kind}: {why}" for kind, why in lacks.items())
        raise DatasetError(f"{root}: no kind of data set is recognised. Tried:\n{tried}\nName it with --dataset.")
    (kind, because), *_ = evidence.items()
    return Recognised(kind=kind, because=because, ruled_out=lacks)


def _specific(root: Path, labels: Path | None) -> Iterator[tuple[str, list[Path], str]]:
    """Kind, the files that mark it, and how a person calls them."""
    given = None if labels is None else [labels if labels.is_dir() else labels.parent]

    def marks(folders: tuple[str, ...], *names: str) -> list[Path]:
        return [place / name for place in given or [root / folder for folder in folders] for name in names]

    stems = ("labels.json", "train.json", "validation.json")
    ssv2_names = [prefix + stem for prefix in ssv2.PREFIXES for stem in stems]
    yield "ssv2", marks(ssv2.LABEL_FOLDERS, *ssv2_names), "labels.json or something-something-v2-labels.json"
    for kind, stem in ssv1.STEMS.items():
        names = [f"{stem}-{name}.csv" for name in ("train", "validation", "labels")]
        yield kind, marks(ssv1.LISTS_IN, *names), names[0]
    yield "ucf101", marks(ucf101.LISTS_IN, "classInd.txt", "trainlist01.txt", "testlist01.txt"), "trainlist01.txt"
    yield "hmdb51", marks(hmdb51.LISTS_IN, "brush_hair_test_split1.txt", "walk_test_split1.txt"), "…_test_split1.txt"
    yield "epic100", marks(epic.LISTS_IN, "EPIC_100_train.csv", "EPIC_100_validation.csv"), "EPIC_100_train.csv"
    diving = [f"Diving48{version}_{split}.json" for version in ("_V2", "") for split in ("train", "test")]
    yield "diving48", marks(diving48.LISTS_IN, *diving), "Diving48_V2_train.json"


def _is_of_another(kind: str, mark: Path) -> bool:
    """Whether a file has the name of a mark and is FiftyOne's labels.json, or a list of paths called train.json."""
    if kind != "ssv2" or mark.suffix != ".json":
        return False
    try:
        table = parsed_json(mark)
    except DatasetError:
        return False  # whoever reads it as what it is called says what is wrong
    first = table[0] if isinstance(table, list) and table else {}
    return is_fiftyone(table) or (isinstance(first, dict) and bool(first) and not {"id", "template"} & set(first))


def _kinetics(root: Path, labels: Path | None, evidence: dict[str, str], lacks: dict[str, str]) -> None:
    """The three sizes share their layout: the folder's or list's name tells them apart, else the class names."""
    for kind in kinetics.CLASSES_OF:
        lists = kinetics.lists_there(root, kind, labels)
        if not lists:
            lacks[kind] = "no csv with the column youtube_id"
            continue
        size = kind.removeprefix("k")
        digits = {other for other in ("400", "600", "700") if any(other in part for part in lists[0].parts[-3:])}
        names = _classes_in(lists)
        if digits and digits != {size}:
            lacks[kind] = f"{_shown(lists[0], root)} is named after {', '.join(sorted(digits))}"
        elif not digits and not names <= set(official_names(kind)):
            strange = min(names - set(official_names(kind)))
            lacks[kind] = f"{strange!r} is none of its classes"
        elif not digits and any(name.startswith("k") for name in evidence):
            smaller = next(iter(evidence))
            lacks[kind] = f"its classes would fit, but so do those of {smaller}"
        else:
            evidence[kind] = f"{_shown(lists[0], root)} has the column youtube_id and {len(names)} classes"
    if all(lacks.get(kind, "").count("youtube_id") == 0 for kind in kinetics.CLASSES_OF) and not evidence:
        tried = "\n".join(f"  {kind}: {lacks[kind]}" for kind in kinetics.CLASSES_OF)
        raise DatasetError(f"{root}: holds lists of Kinetics, but which?\n{tried}\nName it with --dataset.")


def _classes_in(lists: list[Path]) -> set[str]:
    """Class names in Kinetics lists; empty where they have none."""
    names: set[str] = set()
    for file in lists:
        rows = csv.DictReader(read_text(file).splitlines())
        names |= {clean_text((row.get("label") or "").strip()) for row in rows}
    return names - {""}


def _general(root: Path, labels: Path | None, evidence: dict[str, str], lacks: dict[str, str]) -> None:
    """A list of any kind, else folders."""
    source = labels or root
    if source.is_file():
        evidence["csv"] = f"{_shown(source, root)} is a file"
        return
    lists = find_lists(source, root)
    if lists:
        evidence["csv"] = f"{_shown(next(iter(lists.values())), source)} is there"
        return
    unread = unread_lists(source, root)
    if unread:
        listed = "\n".join(f"  {why}" for why in unread.values())
        raise DatasetError(
            f"{root}: files name these videos, and cannot be read as lists of them:\n{listed}\nMend them, or take "
            "folders as classes and leave these files unread: --dataset folder."
        )
    lacks["csv"] = f"no {', '.join(LIST_STEMS)} or metadata with an ending of {', '.join(LIST_FILES)}"
    video = _first_video(root, MOST_DEEP)
    if video is not None:
        evidence["folder"] = f"{_shown(video, root)} is there"
    else:
        lacks["folder"] = "no videos and no folders of frames"


def _first_video(place: Path, depth: int) -> Path | None:
    """The first video or picture below a folder, by name."""
    entries = sorted(list_folder(place), key=lambda entry: entry.name)[:MOST_FILES_LOOKED_AT]
    for entry in entries:
        if is_video_name(entry.name) or is_picture_name(entry.name):
            return place / entry.name
    inner = [place / entry.name for entry in entries if is_folder(entry) and not is_litter(entry.name)]
    return next((video for path in inner if depth and (video := _first_video(path, depth - 1))), None)


def _shown(path: Path, root: Path) -> str:
    return clean_text(str(path.relative_to(root)) if path.is_relative_to(root) and path != root else str(path))
