"""Files that are either whole or not there: part files, durable renames, locks, and what a full disk says.

    <name>.part ──write──▶ fsync ──▶ rename to <name> ──▶ fsync of the folder

Only after the last step may anything say that the file exists.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vidxfer.pipeline.errors import CacheBusy, CacheError, CacheFull, UsageError
from vidxfer.pipeline.writing import PART, let_go, make_folder, open_growing, open_owned, rename


@contextmanager
def disk_errors(path: Path, needed_bytes: int, option: str = "--cache") -> Iterator[None]:
    """Turn what the operating system says about `path` into errors of ours; `option` is where another is named.

    Raises:
        CacheFull: no space or no quota is left; names the bytes needed and free.
        CacheError: the folder cannot be written, or this process may open no more files.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full(path, needed_bytes, option) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise CacheError(
                f"{path}: cannot be written ({os.strerror(error.errno)}). "
                f"Choose another folder with {option}, or make this one writable."
            ) from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            raise CacheError(
                f"{path}: {os.strerror(error.errno)}: this process may have {most} at once. "
                "Allow more (`ulimit -n 1024`), and run the same command: it goes on."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG):
            kind = option.removeprefix("--")
            raise CacheError(f"{path}: is no folder that a {kind} can lie in ({os.strerror(error.errno)}).") from error
        raise


def expect_writable_folder(option: str, folder: Path) -> None:
    """Make a folder where it is missing, and check, before the work, that a file can be made in it.

    Raises:
        UsageError: it cannot; `option` is where another is named.
    """
    try:
        make_folder(folder)
        tried = folder / f".{uuid.uuid4().hex}{PART}"
        let_go(open_owned(tried, below=folder), tried, below=folder)
    except OSError as error:
        raise UsageError(
            f"{option} {folder}: no file can be made in this folder ({os.strerror(error.errno or 0)}). "
            "Name another one, or make it writable."
        ) from error


def expect_room(path: Path, needed_bytes: int) -> None:
    """Raise CacheFull when the disk that holds the folder `path` has less than `needed_bytes` free."""
    if shutil.disk_usage(path).free < needed_bytes:
        raise _full(path, needed_bytes)


def _full(path: Path, needed_bytes: int, option: str = "--cache") -> CacheFull:
    folder = next(parent for parent in [path, *path.parents] if parent.is_dir())
    free = shutil.disk_usage(folder).free
    return CacheFull(
        f"{path}: the disk is full: {needed_bytes:,} bytes needed, {free:,} free. "
        f"What was stored is safe. Make room (or use {option} with a larger disk) and run the same command: it goes on."
    )


def write_all(fd: int, payload: bytes | memoryview, offset: int) -> None:
    """Write the whole payload at `offset`: one call may write less than it was given."""
    view = memoryview(payload).cast("B")
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def publish(fd: int, final: Path, below: Path) -> None:
    """Make the part file of `final`, open as `fd`, durable and give it its name. The folder is still to be synced."""
    os.fsync(fd)
    rename(part_of(final), final, below=below)


def part_of(final: Path) -> Path:
    """The name under which a file is written."""
    return final.with_name(final.name + PART)


def open_owned_part(final: Path, below: Path) -> int:
    """Make the part file of `final` and hold it; no link below the folder `below` is followed.

    Raises:
        CacheBusy: another process holds it.
    """
    part = part_of(final)
    try:
        return open_owned(part, below=below)
    except BlockingIOError as error:
        raise CacheBusy(f"{part}: another process is writing this shard. Wait for it to end, or end it.") from error


def expect_no_run(cache: Path) -> None:
    """Check that a folder which is to become a cache is not the folder of a training run.

    Raises:
        UsageError: it is.
    """
    is_run = False
    with suppress(PermissionError):  # nothing can be written there either, and that is said later
        is_run = (cache / "recipe.json").is_file() and (cache / "run.json").is_file()
    if is_run:
        raise UsageError(f"{cache} is the folder of a training run, not a cache: name another folder with --cache")


class FolderLock:
    """An exclusive lock that names its holder. The lock file stays: removing it would let two holders exist.

    Args:
        path: of the lock file.
        what: is written behind it, for the error.
        option: where another folder is named.

    Raises:
        CacheBusy: on entering, when another process holds it. PathError: it is a link, a pipe or the like.
    """

    def __init__(self, path: Path, *, what: str = "split", option: str = "--cache") -> None:
        self._path, self._what, self._option = path, what, option
        self._fd = -1

    def __enter__(self) -> FolderLock:
        with disk_errors(self._path, 4096, self._option):
            self._fd = open_growing(self._path)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 256, 0).decode(errors="replace").strip() or "an unnamed process"
            os.close(self._fd)
            raise CacheBusy(
                f"{self._path}: {holder} is writing this {self._what}. Wait for it to end, or end it; the lock goes "
                "with it."
            ) from error
        with disk_errors(self._path, 4096, self._option):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)
