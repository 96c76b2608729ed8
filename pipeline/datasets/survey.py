"""A data set against its disk and against itself: what is missing, left over, or listed twice.

    listed paths ─┐                 ┌─▶ missing: listed, not on disk
                  ├─ one walk each ─┤
    files below ──┘                 └─▶ left over: on disk, listed in no split
    ids and recordings of two splits ─▶ repeats: a clip, or another piece of the same recording, on both sides

Consequence: 240,000 files cost one listing per folder. A recording is what a set cuts its clips from (a YouTube video
of Kinetics, a group of UCF101, a kitchen video of EPIC): an accuracy means little when it lies on both sides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.datasets.disk import is_folder
from vidxfer.pipeline.datasets.paths import clean_text, is_litter, is_picture_name, is_video_name
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

MOST_SHOWN = 5
MOST_DEEP = 8
_TIMES = re.compile(r"(.+)_\d+_\d+", re.DOTALL)
_GROUP = re.compile(r"(v_.+_g\d+)_c\d+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Some:
    """A number of things, and the first of them by name."""

    count: int
    first: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> Some:
        """Count and sort."""
        ordered = sorted(set(names))
        return cls(count=len(ordered), first=tuple(ordered[:MOST_SHOWN]))

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.first) else ""
        return f"{self.count:,}" + (f" ({', '.join(self.first)}{more})" if self.first else "")


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """What two splits share.

    Attributes:
        here, there: the splits, "val" and "k700 train".
        what: "ids" or "recordings".
        shared: names of those.
        videos_here: how many videos of `here` are concerned.
    """

    here: str
    there: str
    what: str
    shared: Some
    videos_here: int


def recording_of_id(kind: str, id_: str) -> str:
    """What the ids of Kinetics and UCF101 say that a clip was cut from; the id itself elsewhere."""
    if re.fullmatch(r"k\d+", kind) and (times := _TIMES.fullmatch(id_)):
        return times[1]
    if kind == "ucf101" and (group := _GROUP.fullmatch(id_)):
        return group[1]
    return id_


def recording(kind: str, video: Video) -> str:
    """What the clip was cut from: two clips of one recording look alike. The id, where a set says nothing."""
    if (named := recording_of_id(kind, video.id)) != video.id:
        return named
    if video.is_segment:
        return clean_text(video.path.name)
    return video.id


def repeats(here: Dataset, there: Dataset, *, there_name: str) -> Iterator[Repeat]:
    """Ids and recordings that two splits share; recordings only where they say more than the ids."""
    ids = {video.id for video in there.videos}
    shared = [video.id for video in here.videos if video.id in ids]
    if shared:
        yield Repeat(here=here.split, there=there_name, what="ids", shared=Some.of(shared), videos_here=len(shared))
    sources = {recording(there.name, video) for video in there.videos}
    of_video = [recording(here.name, video) for video in here.videos]
    common = [name for name in of_video if name in sources]
    if len(common) > len(shared):
        yield Repeat(
            here=here.split, there=there_name, what="recordings", shared=Some.of(common), videos_here=len(common)
        )


def missing(dataset: Dataset, on_disk: set[str]) -> Some:
    """Listed videos that are not on disk, by id."""
    return Some.of(video.id for video in dataset.videos if str(video.path) not in on_disk)


def left_over(datasets: Iterable[Dataset], root: Path, on_disk: set[str]) -> Some:
    """Videos and frame folders on disk that no split lists, by path below the root."""
    return Some.of(clean_text(os.path.relpath(path, root)) for path in on_disk - _listed(datasets))


def files_on_disk(datasets: Iterable[Dataset], root: Path) -> set[str]:
    """Every video file and frame folder in the folders that the listed videos lie in, by absolute path.

    Raises:
        DatasetError: a folder cannot be listed.
    """
    root = root if root.is_dir() else root.parent
    listed = _listed(datasets)
    parents = [Path(parent) for parent in {path.rpartition("/")[0] for path in listed}]
    tops = {root / parent.relative_to(root).parts[0] for parent in parents if parent != root}
    above = {str(folder) for parent in parents for folder in (parent, *parent.parents)}
    files: set[str] = set()
    for top in sorted(tops):
        files.update(_walk(str(top), listed, above))
    if root in parents:
        files.update(entry.path for entry in _scan(str(root)) if entry.path in listed or is_video_name(entry.name))
    return files


def _listed(datasets: Iterable[Dataset]) -> set[str]:
    return {str(video.path) for dataset in datasets for video in dataset.videos}


def _walk(folder: str, listed: set[str], above: set[str]) -> Iterator[str]:
    """Videos and folders of pictures below a folder; a listed folder is not opened, nor a link that leads to none."""
    waiting = [(folder, 0)]
    while waiting:
        place, depth = waiting.pop()
        pictures = videos = False
        inner = []
        for entry in _scan(place):
            if entry.path in listed or is_video_name(entry.name):
                videos = True
                yield entry.path
            elif is_folder(entry):
                inner += [entry.path] if entry.path in above or not entry.is_symlink() else []
            else:
                pictures = pictures or is_picture_name(entry.name)
        if pictures and not videos and not inner:
            yield place
        waiting += [(path, depth + 1) for path in inner] if depth < MOST_DEEP else []


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder, litter left out; none where it is not there."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_litter(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DatasetError(f"{clean_text(folder)}: cannot be listed: {error.strerror}") from error
