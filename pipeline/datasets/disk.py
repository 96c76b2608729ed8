"""What lies below a folder, found by one walk: videos and frame folders by stem.

    UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi
            └ exact: "HandstandPushups/v_HandstandPushups_g01_c01.avi" is not there
            └ by stem, letters of any case: it is                                     ──▶ Shelf.find

Consequence: a list of 240,000 rows costs one listing per folder, not one look per row. Links must stay inside the
folder.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from vidxfer.pipeline.datasets.paths import Fence, clean_text, is_litter, is_video_name, list_folder
from vidxfer.pipeline.errors import DatasetError


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link in a circle is not."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def videos_below(folder: Path, fence: Fence, depth: int) -> Iterator[Path]:
    """Every video by name, in the order of names; links must stay inside, plain entries need no further look."""
    for entry in sorted(list_folder(folder), key=lambda entry: entry.name):
        if is_litter(entry.name):
            continue
        path = folder / entry.name
        if entry.is_symlink():
            fence.path(path, where=clean_text(str(path)))
        if is_folder(entry):
            if depth:
                yield from videos_below(path, fence, depth - 1)
        elif is_video_name(entry.name):
            yield path


def folders_in(folder: Path) -> Iterator[Path]:
    """The folders in a folder, litter left out: frame folders, where each is one video."""
    fence = Fence(folder)
    for entry in list_folder(folder):
        if is_litter(entry.name):
            continue
        if entry.is_symlink():
            fence.path(folder / entry.name, where=clean_text(str(folder / entry.name)))
        if is_folder(entry):
            yield folder / entry.name


class Shelf:
    """Paths by stem.

    Args:
        folder: below which they lie.
        paths: of the videos or frame folders.

    Attributes:
        folder: as given.
        doubled: stems that stand for more than one path.
    """

    def __init__(self, folder: Path, paths: Iterator[Path]) -> None:
        self.folder = folder
        self.doubled: set[str] = set()
        self._paths: set[Path] = set()
        self._exact: dict[str, Path] = {}
        self._folded: dict[str, Path] = {}
        for path in paths:
            stem = path.stem if is_video_name(path.name) else path.name
            if self._exact.setdefault(stem, path) is not path:
                self.doubled.add(stem)
            self._folded.setdefault(stem.casefold(), path)
            self._paths.add(path)

    def __len__(self) -> int:
        return len(self._paths)

    def find(self, stem: str, *, listed: str | None = None) -> Path | None:
        """The path of a stem: at the place `listed` below the folder if it is there, else by stem, else in any case."""
        if listed is not None and (place := self.folder / listed) in self._paths:
            return place
        return self._exact.get(stem) or self._folded.get(stem.casefold())


class Finder:
    """Paths on disk for paths in a list: as written, else in another Unicode form, else by a name without its ending.

    "café/a.mp4" finds a folder whose é is written as e and an accent (a Mac's); "20bn-jester-v1/7" finds 7.mp4.
    Folders are listed once each.

    Args:
        root: below which the paths lie.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[Path, tuple[dict[str, str], dict[str, str]]] = {}

    def find(self, relative: str) -> Path | None:
        """The path; None where nothing on disk is meant. Stays inside only as far as `relative` does."""
        place, parts = self._root, PurePosixPath(relative).parts
        for number, part in enumerate(parts):
            if not os.path.lexists(place / part):
                names, stems = self._names(place)
                key = unicodedata.normalize("NFC", part)
                spelled = names.get(key) or (stems.get(key) if number == len(parts) - 1 else None)
                if spelled is None:
                    return None
                part = spelled
            place /= part
        return place

    def _names(self, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
        """Names in a folder, and of its videos, without endings, by their composed form."""
        if folder not in self._listed:
            entries = sorted(entry.name for entry in list_folder(folder)) if folder.is_dir() else []
            composed = {name: unicodedata.normalize("NFC", name) for name in reversed(entries)}
            names = {key: name for name, key in composed.items()}
            stems = {key.rpartition(".")[0]: name for name, key in composed.items() if is_video_name(name)}
            self._listed[folder] = names, stems
        return self._listed[folder]


def first_shelf(
    places: list[Path], read: Callable[[Path], Iterator[Path]], *, what: str, root: Path, layout: str
) -> Shelf:
    """The shelf of the first place that holds anything.

    Raises:
        DatasetError: none does; names the places.
    """
    for place in places:
        if place.is_dir() and len(shelf := Shelf(place, read(place))):
            return shelf
    listed = "\n".join(f"  {place}" for place in places)
    raise DatasetError(f"{root}: no {what}. Looked in:\n{listed}\nExpected:\n{layout}")


def first_file(places: list[Path], *, what: str, root: Path, layout: str) -> Path:
    """The first of these files that is there.

    Raises:
        DatasetError: none is; names them all.
    """
    for place in places:
        if place.is_file():
            return place
    listed = "\n".join(f"  {place}" for place in places)
    raise DatasetError(f"{root}: no {what}. Looked for:\n{listed}\nExpected:\n{layout}")
