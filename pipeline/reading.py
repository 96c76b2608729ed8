"""The one door for reading what may come from a stranger: kind and length first, then the bytes.

    path ─▶ a regular file? ─▶ as long as it must be, or no longer than it can be? ─▶ opened without waiting ─▶ bytes

A cache or a run folder may hold a pipe that never ends, a link to a device, or a file of 300 GB that takes no room.
A link to a regular file is read: data managers lay out whole folders of them, and nothing is written through one.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vidxfer.pipeline.errors import PathError, VidxferError


def kind_of(status: os.stat_result) -> str:
    """What a path is, in words."""
    kinds = {
        stat.S_IFREG: "a regular file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(status.st_mode), "of an unknown kind")


def open_regular(
    path: Path,
    *,
    exactly: int | None = None,
    most: int | None = None,
    error: type[VidxferError] = PathError,
    remedy: str = "",
) -> int:
    """A descriptor for reading a regular file of a length that can be.

    Args:
        exactly, most: the length in bytes it must have, or may have.
        error, remedy: what to raise where something else lies there, and what to say then.

    Raises:
        FileNotFoundError: nothing is there. error: it is no regular file, or has another length.
        PathError: the system does not open it.
    """
    with _named(path):
        expect_kind(path, path.stat(), exactly=exactly, most=most, error=error, remedy=remedy)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            expect_kind(path, os.fstat(fd), exactly=exactly, most=most, error=error, remedy=remedy)
        except BaseException:
            os.close(fd)
            raise
    return fd


def expect_kind(
    path: object,
    status: os.stat_result,
    *,
    exactly: int | None = None,
    most: int | None = None,
    error: type[VidxferError] = PathError,
    remedy: str = "",
) -> None:
    """Raise `error` unless what was found is a regular file of the length. As `open_regular`."""
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{path} is {kind_of(status)}, expected a regular file. {remedy}".rstrip())
    expect_length(path, status.st_size, exactly=exactly, most=most, error=error, remedy=remedy)


def expect_length(
    path: object,
    found_bytes: int,
    *,
    exactly: int | None = None,
    most: int | None = None,
    error: type[VidxferError] = PathError,
    remedy: str = "",
) -> None:
    """Raise `error` unless a length is the one expected. As `open_regular`."""
    if exactly is not None and found_bytes != exactly:
        raise error(f"{path}: the file has {found_bytes} bytes, expected {exactly}. {remedy}".rstrip())
    if most is not None and found_bytes > most:
        raise error(f"{path}: the file has {found_bytes} bytes, expected at most {most}. {remedy}".rstrip())


@contextmanager
def opened(path: Path, **bounds: Any) -> Iterator[BinaryIO]:
    """A regular file, open for reading; arguments and errors as `open_regular`."""
    with os.fdopen(open_regular(path, **bounds), "rb") as file:
        yield file


def read_bytes(path: Path, **bounds: Any) -> bytes:
    """The whole of a file, of which `exactly` or `most` must be given; arguments and errors as `open_regular`."""
    limit = bounds["most"] if bounds.get("exactly") is None else bounds["exactly"]
    with _named(path), opened(path, **bounds) as file:
        raw = file.read(limit + 1)  # it may have grown since
    expect_length(path, len(raw), **bounds)
    return raw


def read_json(path: Path, **bounds: Any) -> Any:
    """What a JSON file says; arguments and errors as `read_bytes`.

    Raises:
        ValueError: it is no JSON in UTF-8, or is nested too deeply to be meant.
    """
    return parsed(read_bytes(path, **bounds))


def parsed(raw: bytes | str) -> Any:
    """What JSON says. Raises ValueError as `read_json`."""
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def expect_unpacked(file: BinaryIO, path: object, *, error: type[VidxferError] = PathError) -> None:
    """Check that the zip archive in which torch keeps tensors packs none: a few bytes could unpack to any number.

    Raises:
        error: its entries have more bytes together than the file.
    """
    file_bytes = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked_bytes = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, RuntimeError, ValueError):
        unpacked_bytes = 0  # no such archive: torch reads it in another way, or says so
    file.seek(0)
    if unpacked_bytes > file_bytes:
        raise error(f"{path}: unpacks to {unpacked_bytes} bytes from {file_bytes}; torch.save packs nothing")


def lines(
    file: BinaryIO, path: object, *, most: int, before: int = 0, error: type[VidxferError] = PathError
) -> Iterator[bytes]:
    """The lines of an open file from here on, each with its end; the last may have none. `before`: lines before here.

    Raises:
        error: a line is longer than `most` bytes.
    """
    number = before
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise error(f"{path}, line {number}: more than {most} bytes, which no line of such a file has")
        yield line


def expect_plain_tree(folder: Path) -> None:
    """Check a folder into which a library is going to write by path.

    Raises:
        PathError: below it lies something else than folders and regular files.
    """
    for outer, folders, names in os.walk(folder):
        for path in (Path(outer, name) for name in (*folders, *names)):
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                raise PathError(
                    f"{path} is {kind_of(status)}, expected a regular file or a folder. Nothing was changed."
                )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What the system says about a path, as an error of ours; that nothing is there is the caller's matter."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ENOTDIR:  # a file where a folder is to be
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        raise PathError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from error
