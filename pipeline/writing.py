"""The one door for writing: below a folder no link is followed, and no file that lies there is written over in place.

    below ──▶ a ──▶ b ──▶ name      each is opened by its name in the one before, never through a link
    new     made exclusively under a fresh name ─▶ fsync ─▶ rename to name ─▶ fsync of the folder
    grows   opened as it is: a regular file with one name, or an error

A cache or a run folder may come from a stranger, with links, pipes and part files prepared in it. `below`, and what
leads to it, is the user's own and may be a link to another disk; it is the file's folder where nothing else is said.
A hard link is not seen in a name, so a file with two of them is not written to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vidxfer.pipeline.errors import PathError
from vidxfer.pipeline.reading import kind_of

PART = ".part"

_FRESH = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AS_IT_IS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a pipe is not waited for
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def folder_below(folder: Path, below: Path | None = None, *, make: bool = False) -> Iterator[int]:
    """A descriptor of `folder`, reached from `below` (itself, if None) without following a link.

    Raises:
        PathError: something on the way is a link or no folder. FileNotFoundError: it is not there; `make` makes it.
    """
    reached = below = folder if below is None else below
    fd = os.open(below, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in folder.relative_to(below).parts:
            reached = reached / name
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=fd)
            try:
                if name == "..":
                    raise PathError(f"{folder}: leaves {below}. Nothing was written there.")
                inner = os.open(name, _FOLDER, dir_fd=fd)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise _refused(reached, os.stat(name, dir_fd=fd, follow_symlinks=False), "a folder", below) from error
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _refused(path: Path, status: os.stat_result, wanted: str, below: Path) -> PathError:
    where = f" to {path.readlink()}" if stat.S_ISLNK(status.st_mode) else ""
    return PathError(
        f"{path} is {kind_of(status)}{where}, expected {wanted}. Nothing was changed below {below}. "
        "Remove it, or put a copy of what it stands for in its place."
    )


def make_folder(folder: Path, *, below: Path | None = None) -> None:
    """Make a folder and those that lead to it, where they are missing; links are followed up to `below` (itself)."""
    if below is None:
        folder.mkdir(parents=True, exist_ok=True)
    with folder_below(folder, below, make=True):
        pass


def make_fresh_folder(folder: Path) -> None:
    """Make an empty folder in one that is there; what had the name is removed."""
    remove(folder)
    with folder_below(folder.parent) as outer:
        os.mkdir(folder.name, dir_fd=outer)


@contextmanager
def whole_file(path: Path, *, below: Path | None = None) -> Iterator[BinaryIO]:
    """A new file, durable and under its name when the block ends without an error; else there is none.

    What had the name, a link or a file, is replaced and not touched. Raises as `folder_below`.
    """
    with folder_below(path.parent, below) as folder:
        _sweep_own(folder, path.name)
        name = _fresh_name(path)
        fd = _owned(folder, name)
        try:
            with os.fdopen(fd, "wb") as file:
                yield file
                file.flush()
                os.fsync(fd)
                os.rename(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException as error:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            if isinstance(error, IsADirectoryError):
                raise PathError(f"{path} is a folder, expected a regular file. Nothing was changed.") from error
            raise
        os.fsync(folder)


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """As `whole_file`, for a library that opens a path: it gets one in a new folder, with the same name."""
    with folder_below(path.parent) as folder:
        name = _fresh_name(path)
        os.mkdir(name, 0o700, dir_fd=folder)
        try:
            yield path.parent / name / path.name
            with folder_below(path.parent / name, path.parent) as inner:
                _sync(path.name, inner)
                os.rename(path.name, path.name, src_dir_fd=inner, dst_dir_fd=folder)
        finally:
            remove(path.parent / name)
        os.fsync(folder)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all; paths within need not be UTF-8. Raises as `whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def open_owned(path: Path, *, below: Path) -> int:
    """Make an empty file and hold it: the lock ends with the process, however it ends. What a dead owner left goes.

    Raises:
        BlockingIOError: a living process holds it. PathError, FileNotFoundError: as `folder_below`.
    """
    with folder_below(path.parent, below) as folder:
        return _owned(folder, path.name)


def let_go(fd: int, path: Path, *, below: Path) -> None:
    """Close what `open_owned` gave, and remove it if it still has that name."""
    with suppress(FileNotFoundError), folder_below(path.parent, below) as folder:
        if _is_named(fd, folder, path.name):
            os.unlink(path.name, dir_fd=folder)
    os.close(fd)


def open_growing(path: Path, *, below: Path | None = None, make: bool = True) -> int:
    """Open a file that is read and written in place, as journals and locks are; `make` it where it is missing.

    Raises:
        PathError: it is a link, a pipe or the like, or has a second name (a hard link); or as `folder_below`.
        FileNotFoundError: it is not there, and is not to be made.
    """
    below = path.parent if below is None else below
    with folder_below(path.parent, below) as folder:
        with suppress(FileNotFoundError):
            status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise _refused(path, status, "a regular file", below)
        fd = os.open(path.name, _AS_IT_IS | (os.O_CREAT if make else 0), 0o666, dir_fd=folder)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return fd
    os.close(fd)
    raise PathError(
        f"{path} is {kind_of(status)} with {status.st_nlink} names (hard links), expected a regular file with one. "
        f"Nothing was changed. Give it a copy of its own: cp {path.name} new && mv new {path.name}"
    )


def remove(path: Path, *, below: Path | None = None) -> None:
    """Remove what has this name: of a link the link alone, a folder with what it holds. Raises PathError."""
    with suppress(FileNotFoundError), folder_below(path.parent, below) as folder:
        if stat.S_ISDIR(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode):
            try:
                shutil.rmtree(path.name, ignore_errors=True, dir_fd=folder)  # another process may still write into it
            except OSError as error:  # Ctrl-C between a close and its note makes rmtree close twice
                raise (error.errno == errno.EBADF and error.__context__) or error from None
        else:
            os.unlink(path.name, dir_fd=folder)


def rename(source: Path, target: Path, *, below: Path | None = None, target_below: Path | None = None) -> None:
    """Give a file or a folder another name; a link is renamed itself, and one that has the name is replaced.

    `below` is for both, or for the source where `target_below` is given. Raises as `folder_below`.
    """
    to = below if target_below is None else target_below
    with folder_below(source.parent, below) as left, folder_below(target.parent, to) as entered:
        os.rename(source.name, target.name, src_dir_fd=left, dst_dir_fd=entered)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    with folder_below(folder) as fd:
        os.fsync(fd)


def sync_tree(folder: Path) -> None:
    """Make every file and every name below a folder durable."""
    for _, _, names, outer in os.fwalk(folder, topdown=False):
        for name in names:
            if stat.S_ISREG(os.stat(name, dir_fd=outer, follow_symlinks=False).st_mode):
                _sync(name, outer)
        os.fsync(outer)


def sweep_parts(folder: Path) -> list[Path]:
    """Remove part files below `folder` that no living process holds, and what only has such a name; returns them."""
    removed = []
    for outer, _, names, fd in os.fwalk(folder):
        for name in sorted(name for name in names if name.endswith(PART)):
            with suppress(BlockingIOError):
                _remove_unowned(fd, name)
                removed.append(Path(outer, name))
    return removed


def _sync(name: str, folder: int) -> None:
    with os.fdopen(os.open(name, _AS_IT_IS & ~os.O_RDWR, dir_fd=folder), "rb") as file:
        os.fsync(file)


def _fresh_name(path: Path) -> str:
    return f".{path.name}.{uuid.uuid4().hex[:12]}{PART}"


def _sweep_own(folder: int, name: str) -> None:
    """Remove what writers of this very file left when they were killed."""
    left = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{12}}{re.escape(PART)}")
    for leftover in filter(left.fullmatch, os.listdir(folder)):
        with suppress(BlockingIOError, IsADirectoryError):
            _remove_unowned(folder, leftover)


def _owned(folder: int, name: str) -> int:
    """A file that was made under this name just now, and is locked."""
    while True:
        try:
            fd = os.open(name, _FRESH, 0o666, dir_fd=folder)
        except FileExistsError:
            _remove_unowned(folder, name)
            continue
        # Between making and locking it another process may have taken it for a dead one's.
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(fd, folder, name):
                return fd
        os.close(fd)


def _remove_unowned(folder: int, name: str) -> None:
    """Remove a file that no process holds. Raises BlockingIOError where one does, IsADirectoryError for a folder."""
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):  # no writer of ours made it; a folder is refused
            os.unlink(name, dir_fd=folder)
            return
        fd = os.open(name, _AS_IT_IS, dir_fd=folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(fd, folder, name):
                os.unlink(name, dir_fd=folder)
        finally:
            os.close(fd)


def _is_named(fd: int, folder: int, name: str) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False
