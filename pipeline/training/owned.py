"""Ownership of a run folder: one process at a time writes there, and only into a run or an empty folder.

RUN/run.lock    held by train, evaluate and import to their end; the lock ends with the process
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidxfer.pipeline.cache.store import splits
from vidxfer.pipeline.disk import FolderLock, disk_errors
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.writing import PART, make_folder

LOCK = "run.lock"
UNFINISHED = {LOCK, "rows.json", "run.json", "recipe.json"}
"""Files that an interrupted start of a run leaves behind, besides unfinished parts of these files."""

MOST_NAMED = 3


def expect_run_or_nothing(folder: Path) -> None:
    """Check that a folder holds a run, or no files of anything else.

    Raises:
        UsageError: it is a file, a cache, or holds other files.
    """
    if folder.is_dir():
        if (folder / "recipe.json").is_file():
            return
        if split_names := splits(folder):
            raise UsageError(
                f"{folder} is a cache, with the splits {', '.join(split_names)}, and not a run: "
                "name another folder with --run"
            )
        others = sorted(path.name for path in folder.iterdir() if path.name not in UNFINISHED and path.suffix != PART)
        if others:
            more = " …" if len(others) > MOST_NAMED else ""
            raise UsageError(
                f"{folder} is no run folder and is not empty: it holds {', '.join(others[:MOST_NAMED])}{more}. "
                "Name a run, or a new folder, with --run"
            )
    elif folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} is not a folder: name another one with --run")


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder while a run or its products are written there. A missing folder is made.

    Raises:
        CacheBusy: another process owns it. CacheError, CacheFull: it cannot be written.
    """
    with disk_errors(folder, 4096, option="--run"):
        make_folder(folder)
    with FolderLock(folder / LOCK, what="run", option="--run"):
        yield
