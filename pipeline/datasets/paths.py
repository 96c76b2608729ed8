"""From what a list or a folder says to a path that stays inside the data set, and to text that is safe to print.

    "a/b.mp4"        ──▶  root/a/b.mp4
    "../x.mp4"       ──▶  DatasetError: leaves the root            (so do absolute paths and links that point outside)
    b"caf\\xe9.mp4"   ──▶  path: the same bytes; id: "caf\\xe9.mp4" with the backslash written out

Consequence: a list from a stranger can never make vidxfer open a file the person did not point at, and every id can be
written as UTF-8. The root itself, and the folders a layout names (a split folder, the video folder), may be links: the
person put them there, and the border is drawn around what they point to.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NoReturn

from vidxfer.pipeline.errors import DatasetError

VIDEO_EXTENSIONS = frozenset(
    [".mp4", ".webm", ".avi", ".mkv", ".mov", ".ts", ".flv", ".wmv", ".mpg", ".mpeg", ".m4v", ".3gp", ".ogv"]
)
"""What counts as a video by its name, lower case with the dot."""

PICTURE_EXTENSIONS = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp"])
"""What counts as a frame in a folder of frames."""

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval"),
    "test": ("test", "testing"),
}
"""How data sets spell their splits; letters of any case. The first of several that are there is taken."""

_LITTER = frozenset(
    ["@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "$recycle.bin", "lost+found",
     "system volume information", "__macosx", "thumbs", "thumbs.db", "thumbnails", "desktop.ini", "__pycache__"]
)  # fmt: skip
_LITTER_BEGINS = (".", "synofile_thumb", "synophoto_thumb", "synovideo_video_screenshot")


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or what a NAS, a system or an editor leaves beside videos."""
    lowered = name.lower()
    return lowered.startswith(_LITTER_BEGINS) or lowered in _LITTER


def is_video_name(name: str) -> bool:
    """Whether a file of this name is taken for a video: a known extension, and no litter."""
    last = name.rpartition("/")[2]
    return not is_litter(last) and os.path.splitext(last)[1].lower() in VIDEO_EXTENSIONS  # noqa: PTH122  # 5x faster


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is taken for a frame: a known extension, and no litter."""
    return not is_litter(name) and os.path.splitext(name)[1].lower() in PICTURE_EXTENSIONS  # noqa: PTH122


@cache
def split_of_word(word: str) -> str | None:
    """ "validation" → "val"; None when the word names no split."""
    lowered = word.strip().lower()
    return next((split for split, words in SPLIT_WORDS.items() if lowered in words), None)


def clean_text(text: str) -> str:
    r"""The same text as one line of Unicode; undecodable bytes and control characters become `\xNN` or `\uNNNN`."""
    return text if text.isprintable() else "".join(_clean(character) for character in text)


def _clean(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python carries the undecodable bytes 80 to ff
        return f"\\x{ord(character) - 0xDC00:02x}"
    hostile = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode() if hostile else character


def nearest(word: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the known word closest to `word`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def read_text(path: Path) -> str:
    """The text of a label file. UTF-8 with or without a byte order mark; undecodable bytes become surrogates.

    Raises:
        DatasetError: not a regular file, not readable, empty, or UTF-16.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: not a file")
    try:
        raw = path.read_bytes()
    except OSError as error:
        unreadable(error)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DatasetError(f"{path}: is UTF-16; save it as UTF-8")
    if not raw.strip():
        raise DatasetError(f"{path}: the file is empty")
    return raw.decode("utf-8-sig", "surrogateescape")


def unreadable(error: OSError) -> NoReturn:
    """Turn "permission denied" into words about the data set.

    Raises:
        DatasetError: always.
    """
    raise DatasetError(f"{clean_text(str(error.filename))}: cannot be read: {error.strerror}") from error


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, unsorted.

    Raises:
        DatasetError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        unreadable(error)


class Fence:
    """The border around a folder. Remembers which folders lie inside: a list of 240,000 rows costs one lstat each.

    Args:
        root: the folder no path may leave; may itself be a link.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._real_root = self.root.resolve()
        self._inside_folders: set[Path] = set()

    def path(self, relative: str | Path, *, where: str) -> Path:
        """`root / relative`, or an error that begins with `where` ("list.csv:17").

        The file need not exist. An absolute path is taken as it is and must lie inside too.

        Raises:
            DatasetError: empty, holds a NUL, is a web address, or leaves the root once links and `..` are resolved.
        """
        text = str(relative)
        if not text or "\0" in text:
            raise DatasetError(f"{where}: {text!r} is not a path")
        if "://" in text:
            raise DatasetError(f"{where}: {text!r} is an address; download the video and list its file")
        path = self.root / text
        try:
            plain = path.name != ".." and not path.is_symlink()
            if plain and path.parent in self._inside_folders:
                return path
            real = path.resolve()
        except RuntimeError:  # a loop of links: nothing can be read through it, and reading it says so
            return path
        except (OSError, UnicodeEncodeError) as error:
            raise DatasetError(f"{where}: {clean_text(text)[:80]!r} cannot be a path here: {error}") from error
        if self._real_root not in real.parents:
            raise DatasetError(
                f"{where}: {clean_text(text)!r} leaves the data set: it is {clean_text(str(real))!r}, which is outside "
                f"{str(self._real_root)!r}. Give the folder that holds the videos as the root, and list paths below it."
            )
        if plain:
            self._inside_folders.add(path.parent)
        return path

    def below(self, listed: str) -> str:
        """A path as a list writes it; an absolute one inside the root becomes the path below the root, also by links.

        What leaves the root stays as it is: `path` refuses it.
        """
        if not listed.startswith("/") or "\0" in listed:
            return listed
        for place in (Path(listed), Path(os.path.realpath(os.path.dirname(listed))) / Path(listed).name):  # noqa: PTH120
            for root in (self.root, self._real_root):
                if place.is_relative_to(root) and ".." not in place.parts:
                    return place.relative_to(root).as_posix()
        return listed


def inside(root: Path, relative: str | Path, *, where: str = "path") -> Path:
    """`root / relative` once; see `Fence.path` for what is refused."""
    return Fence(root).path(relative, where=where)
