"""A shard is written beside its split, and moved into it by the one process that holds the split's lock.

    any process    <cache>/.train.<attempt>.part/tokens/c/3/…    every file durable, then shard.json: it is sealed
    lock's holder  ──rename──▶ <cache>/.train.3.commit           from here on the shard is going to be this one
                   ledger line taken back ─▶ files moved into place, `state` last ─▶ new ledger line ─▶ folder removed

Consequence: a process that lost its lock, its network or its scheduler can fill its own folder and nothing else. A
crash in the middle of the moves is finished by the next holder (`recover`), so a shard that was whole is never lost to
its successor; and a sealed shard that nobody moved yet is not computed again.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.cache.ledger import MOST_RECORD_BYTES, Ledger, ShardRecord
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.disk import disk_errors
from vidxfer.pipeline.errors import PathError
from vidxfer.pipeline.reading import read_json
from vidxfer.pipeline.writing import PART, make_folder, remove, rename, sync_folder, whole_file

SEAL, COMMIT = "shard.json", ".commit"


@dataclass(frozen=True, kw_only=True)
class SealedShard:
    """A finished shard that is not in its split yet. Crosses process borders.

    Attributes:
        record: its ledger line to be.
        folder: where its files are; None: they stay as they are, only the record is new.
    """

    record: ShardRecord
    folder: Path | None


def staging_folder(split: Split, attempt: str) -> Path:
    """A folder of its own for every execution of an attempt, with its process in the name: nobody else writes in it."""
    owner = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return split.path.with_name(f".{split.path.name}.{attempt}-{owner}{PART}")


def was_begun(split: Split, attempt: str) -> bool:
    """Whether some process began to write this attempt and did not end in good order."""
    return any(split.path.parent.glob(f".{split.path.name}.{attempt}-*{PART}"))


def sealed_by(split: Split, attempt: str) -> SealedShard | None:
    """The shard that this attempt finished although nobody was told, as when its process died just then."""
    for folder in split.path.parent.glob(f".{split.path.name}.{attempt}-*{PART}"):
        record = _sealed(split, folder)
        if record is not None and _is_whole(split, folder, record):
            return SealedShard(record=record, folder=folder)
    return None


def seal(split: Split, folder: Path, record: ShardRecord) -> SealedShard:
    """Say, durably and after every other byte, that the shard in `folder` is whole."""
    payload = (Ledger.line_of(record, split.cache_id)).encode()
    with disk_errors(folder, len(payload)), whole_file(folder / SEAL, below=folder.parent) as file:
        file.write(payload)
    return SealedShard(record=record, folder=folder)


def adopt(split: Split, sealed: SealedShard) -> None:
    """Put a sealed shard in its place and mark it as finished. Only for the holder of the split's lock."""
    if sealed.folder is None:
        split.ledger.append(sealed.record)
        return
    commit = split.path.with_name(f".{split.path.name}.{sealed.record.shard}{COMMIT}")
    with disk_errors(split.path, 4096):
        rename(sealed.folder, commit)
        sync_folder(commit.parent)
    _finish(split, commit, sealed.record)


def recover(split: Split) -> list[int]:
    """Finish what an earlier holder of the lock left: half-moved shards, then sealed ones of pending rows.

    Returns the shards that are finished thereby. Folders of unfinished attempts are removed; a process that still
    writes into one fails, and nothing of it is kept.
    """
    recovered = []
    for commit in sorted(split.path.parent.glob(f".{split.path.name}.*{COMMIT}")):
        record = _sealed(split, commit)
        if record is None:  # of another split that once had this name
            remove(commit)
            continue
        moved = not any((commit / array.key(record.shard)).exists() for array in split.layout.owned.values())
        if moved and split.ledger.finished().get(record.shard) == record:
            remove(commit)  # marked before the crash: only the empty folder was left
            continue
        _finish(split, commit, record)
        recovered.append(record.shard)
    finished = split.ledger.finished()
    for folder in _staged(split):
        record = _sealed(split, folder)
        if record is not None and record.shard not in finished and _is_whole(split, folder, record):
            adopt(split, SealedShard(record=record, folder=folder))
            finished[record.shard] = record
            recovered.append(record.shard)
    sweep_staged(split)
    return recovered


def sweep_staged(split: Split, *, keep_sealed: bool = False) -> None:
    """Remove the folders of attempts; with `keep_sealed` not those of whole shards that are still pending."""
    finished = split.ledger.finished() if keep_sealed else {}
    for folder in _staged(split):
        record = _sealed(split, folder) if keep_sealed else None
        if record is None or record.shard in finished:
            remove(folder)


def _staged(split: Split) -> list[Path]:
    # A split that is being made has such a name too, but no dash in it: see create_split.
    return sorted(split.path.parent.glob(f".{split.path.name}.*-*{PART}"))


def _sealed(split: Split, folder: Path) -> ShardRecord | None:
    """The record of a sealed folder of this very split."""
    try:
        entry = read_json(folder / SEAL, most=MOST_RECORD_BYTES)
        if entry["cache_id"] != split.cache_id:
            return None
        record = Ledger.record_of(entry)
        rows = split.layout.rows(record.shard)
    except (OSError, PathError, ValueError, KeyError, TypeError, AttributeError):
        # never sealed, torn, of a shard that does not exist, or nothing that a writer of ours made
        return None
    return record if (record.first_row, record.last_row) == (rows[0], rows[-1]) else None


def _is_whole(split: Split, folder: Path, record: ShardRecord) -> bool:
    for array in split.layout.arrays_of(record.crc32c):
        file = folder / array.key(record.shard)
        if not file.is_file() or file.stat().st_size != split.layout.file_bytes(array, record.shard, record.bytes):
            return False
    return True


def _finish(split: Split, commit: Path, record: ShardRecord) -> None:
    """Move the files that are still in `commit`, mark the shard, and remove the folder; may be done again."""
    shard = record.shard
    marked = split.ledger.finished().get(shard)
    if marked == record:  # all but the folder's end had been done
        remove(commit)
        return
    if marked is not None:
        split.ledger.drop(shard, "written again")
    with disk_errors(split.path, record.bytes):
        for name, array in split.layout.owned.items():
            source, final = commit / array.key(shard), split.path / array.key(shard)
            if source.is_file():
                make_folder(final.parent, below=split.path)
                rename(source, final, below=commit.parent, target_below=split.path)
            folder = final.parent
            while folder != split.path / name:  # c/<shard>/0/…: each may be new
                sync_folder(folder)
                folder = folder.parent
            sync_folder(folder)
    split.ledger.append(record)
    remove(commit)
