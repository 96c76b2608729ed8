"""Which videos of a Kinetics split are on disk, whoever cut and packed them.

    train/---QUuC4vJs_000084_000094.mp4            flat, as CVDF packs it; replacements in a folder of their own
    train/testifying/---QUuC4vJs_000084_000094.mp4    class folders, blanks or _ in their names; train_256/ too
    videos_val/jf7RDuUTrsQ.mp4                     names without times, as MMAction2 asks for
                  └ id ──────┘ └ start, end: whole seconds, read from the right: an id may begin with - and hold _

Consequence: a file is found by id and times, never by its folder or the first 11 letters, so two clips of one YouTube
video stay two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from vidxfer.pipeline.datasets.disk import folders_in, is_folder, videos_below
from vidxfer.pipeline.datasets.paths import SPLIT_WORDS, Fence, clean_text, list_folder
from vidxfer.pipeline.errors import DatasetError

Key = tuple[str, int, int]
"""YouTube id, first and last second."""

REPLACEMENTS = ("replacement/replacement_for_corrupted_k400", "replacement_for_corrupted_k400", "replacement")
MOST_DEEP = 3
"""Folders between the split folder and a video: videos/vol_00/<class>/ is the deepest that is handed out."""

_NAME = re.compile(r"(?P<id>.{11})_(?P<start>\d{1,6})_(?P<end>\d{1,6})|(?P<any>.+)_(?P<from>\d{6})_(?P<to>\d{6})")


@dataclass(frozen=True, kw_only=True)
class OnDisk:
    """The files of one split.

    Attributes:
        folder: where they lie.
        layout: what a person calls it, "class folders in train_256".
        of_split: the folder is this split's alone; False where all splits share it.
        timed: files by id and times.
        untimed: files by id, where the name has no times.
        replaced: files that stand in for corrupted ones, by id and times.
    """

    folder: Path
    layout: str
    of_split: bool
    timed: dict[Key, list[Path]] = field(default_factory=dict)
    untimed: dict[str, list[Path]] = field(default_factory=dict)
    replaced: dict[Key, list[Path]] = field(default_factory=dict)

    def beside(self, listed: set[Key]) -> int:
        """Number of files in the folder that none of the listed clips can mean; replacements do not count."""
        ids = {key[0] for key in listed}
        strange = [paths for key, paths in self.timed.items() if key not in listed]
        return sum(map(len, strange)) + sum(len(paths) for id_, paths in self.untimed.items() if id_ not in ids)


def parse_name(stem: str) -> tuple[str, int, int] | str:
    """ "a_-b-c_d_e-f_000084_000094" -> ("a_-b-c_d_e-f", 84, 94); a name without times is the id itself."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return stem
    if match["id"]:
        return match["id"], int(match["start"]), int(match["end"])
    return match["any"], int(match["from"]), int(match["to"])


@cache
def simple_class(name: str) -> str:
    """How class names are compared with folder names: lower case, one blank for blanks and _, no quotes around it."""
    return re.sub(r"[\s_]+", " ", name.strip().strip('"')).strip().casefold()


def find_videos(bases: list[Path], split: str, expected: str, *, frames: bool = False) -> OnDisk:
    """The first folder that holds videos of the split, or, with `frames`, folders of frames.

    `expected` is the layout, for the error.

    Raises:
        DatasetError: there is none, or a link leaves its folder; names every folder that was tried.
    """
    tried: list[Path] = []
    for place, of_split, depth in _places(bases, split):
        if place in tried:
            continue
        tried.append(place)
        timed: dict[Key, list[Path]] = {}
        untimed: dict[str, list[Path]] = {}
        folders = folders_in(place) if frames and of_split else ()
        for path in [*videos_below(place, Fence(place), depth), *folders]:
            key = parse_name(path.stem)
            if isinstance(key, str):
                untimed.setdefault(key, []).append(path)
            else:
                timed.setdefault(key, []).append(path)
        if timed or untimed:
            return OnDisk(
                folder=place,
                layout=_layout(place, timed, untimed),
                of_split=of_split,
                timed=timed,
                untimed=untimed,
                replaced=_replacements(bases),
            )
    words = ", ".join(f"{word}/" for word in SPLIT_WORDS[split])
    listed = "\n".join(f"  {place}" for place in tried)
    raise DatasetError(
        f"{bases[0]}: no folder with videos of the {split} split. Looked for {words} also as videos_… and …_256, in:\n"
        + "\n".join(f"  {base}" for base in bases if base.is_dir())
        + (f"\nNo video in:\n{listed}" if listed else "")
        + f"\nExpected:\n{expected}"
    )


def _places(bases: list[Path], split: str) -> Iterator[tuple[Path, bool, int]]:
    """Folders to look in, the likeliest first: (folder, whether it is the split's alone, how deep videos may lie)."""
    pattern = re.compile(rf"(?:videos_)?(?:{'|'.join(SPLIT_WORDS[split])})(?:_\d+)?", re.IGNORECASE)
    folders = [path for base in bases for path in (base, base / "videos") if path.is_dir()]
    for base in folders:
        names = [entry.name for entry in list_folder(base) if is_folder(entry) and pattern.fullmatch(entry.name)]
        yield from ((base / name, True, MOST_DEEP) for name in sorted(names, key=lambda name: (len(name), name)))
    yield from ((base, False, MOST_DEEP) for base in folders if base.name == "videos")
    yield from ((base, False, 0) for base in folders)


def _replacements(bases: list[Path]) -> dict[Key, list[Path]]:
    replacements: dict[Key, list[Path]] = {}
    place = next((base / name for base in bases for name in REPLACEMENTS if (base / name).is_dir()), None)
    if place is not None:
        for path in videos_below(place, Fence(place), MOST_DEEP):
            key = parse_name(path.stem)
            if not isinstance(key, str):
                replacements.setdefault(key, []).append(path)
    return replacements


def _layout(place: Path, timed: dict[Key, list[Path]], untimed: dict[str, list[Path]]) -> str:
    paths = [path for group in (timed, untimed) for clip_paths in group.values() for path in clip_paths]
    flat = sum(path.parent == place for path in paths)
    extensions = sorted({path.suffix.lower() for path in paths})
    shape = "CVDF flat" if flat == len(paths) and not untimed else "flat" if flat == len(paths) else "class folders"
    name = f"{shape} in {clean_text(place.name)}/"
    if 0 < flat < len(paths):
        name += f", {flat} videos beside them"
    if untimed:
        name += f", {sum(map(len, untimed.values()))} names without times"
    return name + (f", endings {' '.join(extensions)}" if len(extensions) > 1 else "")
