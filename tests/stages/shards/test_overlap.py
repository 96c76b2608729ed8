"""Decoding, CLIP and writing at the same time: the same bytes, errors of any of them end the run, nothing is lost."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache import shard as shard_module
from vidxfer.pipeline.cache.shard import ShardFile
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.shard_writer import ShardWriter
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.errors import CacheError, CacheFull, ClipError
from vidxfer.stages.extract import extract
from vidxfer.stages.shards import encode
from vidxfer.stages.shards.extract import OPEN_SHARDS_MOST, extract_shard, task_of


def one_by_one(toy: Any, cache: Path) -> None:
    """Every shard made for itself, from beginning to end, in a copy of the empty cache."""
    request = toy.request(cache, codec="int8")
    tower = load_tower(str(toy.clip), device="cpu")
    for name in ("train", "val"):
        split, dataset = open_split(cache, name), request.data.load(name)
        videos = dict(enumerate(dataset.videos))
        for shard in range(split.shard_count):
            sealed = extract_shard(task_of(request, videos, split, shard), split, tower, lambda: None)
            assert sealed.folder is not None
            for path in sorted(p for p in sealed.folder.rglob("*") if p.is_file() and p.name != "shard.json"):
                kept = split.path / path.relative_to(sealed.folder)
                assert kept.read_bytes() == path.read_bytes(), kept
            shutil.rmtree(sealed.folder)


def test_shards_in_one_stream_have_the_bytes_of_each_made_for_itself(toy: Any, tmp_path: Path) -> None:
    extract(toy.request(tmp_path / "cache"))
    one_by_one(toy, tmp_path / "cache")


def test_the_next_shard_is_decoded_and_seen_by_clip_while_the_last_is_made_durable(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, encoded = ShardWriter._commit, encode._encode_group
    finishing, seen_meanwhile = threading.Event(), threading.Event()

    def slow_commit(self: ShardWriter) -> None:
        finishing.set()
        assert seen_meanwhile.wait(20), "nothing went on while a shard was finished"
        commit(self)

    def watched(*args: Any) -> Any:
        if finishing.is_set():
            seen_meanwhile.set()
        return encoded(*args)

    monkeypatch.setattr(ShardWriter, "_commit", slow_commit)
    monkeypatch.setattr(encode, "_encode_group", watched)
    (report,) = extract(toy.request(tmp_path / "cache", splits=("train",)))
    assert report.stored == report.videos == 24


def test_a_disk_that_is_full_while_writing_behind_stops_the_run_and_keeps_what_is_whole(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    write, room = ShardFile.write, [40]

    def filling(self: ShardFile, *args: Any) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *args)

    request = toy.request(tmp_path / "cache", splits=("train",))
    with monkeypatch.context() as patched:
        patched.setattr(ShardFile, "write", filling)
        with pytest.raises(CacheFull, match=r"the disk is full.*What was stored is safe"):
            extract(request)
    split = open_split(tmp_path / "cache", "train")
    assert 0 <= len(split.ledger.finished()) < split.shard_count
    assert [path.name for path in (tmp_path / "cache").glob(".train.*")] == []
    assert "behind_0" not in {thread.name for thread in threading.enumerate()}
    extract(request)
    undisturbed = toy.request(tmp_path / "other", splits=("train",))
    extract(undisturbed)
    assert content(tmp_path / "cache") == content(tmp_path / "other")


def test_an_error_of_clip_ends_writing_too(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, groups = encode._encode_group, [4]

    def failing(*args: Any) -> Any:
        groups[0] -= 1
        if groups[0] < 0:
            raise ClipError("out of memory")
        return encoded(*args)

    extract(toy.request(tmp_path / "cache", splits=("val",)))
    with monkeypatch.context() as patched:
        patched.setattr(encode, "_encode_group", failing)
        with pytest.raises(ClipError, match="out of memory"):
            extract(toy.request(tmp_path / "cache", splits=("train",)))
    names = {thread.name.partition("_")[0] for thread in threading.enumerate()}
    assert not names & {"behind", "decode"}
    assert [path.name for path in (tmp_path / "cache").glob(".train.*part/*")] == []
    (report,) = extract(toy.request(tmp_path / "cache", splits=("train",)))
    assert report.stored == 24


def test_a_shard_is_made_durable_bit_by_bit(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(shard_module, "SYNC_BYTES", 1 << 14)
    monkeypatch.setattr(shard_module.os, "fdatasync", lambda fd: synced.append(fd))
    (report,) = extract(toy.request(tmp_path / "cache", splits=("val",)))
    assert report.stored == 16
    assert len(synced) >= open_split(tmp_path / "cache", "val").layout.total_bytes // (1 << 16)


def test_however_slow_the_disk_is_few_shards_are_open_at_the_same_time(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos that are refused at once hand over no bytes, so that no bound on bytes holds them back."""
    root = toy.smaller(tmp_path / "small", 24)
    for victim in sorted((root / toy.videos.name).glob("*.webm"))[:23]:  # a codec is not fitted on nothing
        victim.write_bytes(b"")
    enter, close = ShardWriter.__enter__, ShardWriter._close
    opened, most = set[int](), [0]

    def entered(self: ShardWriter) -> ShardWriter:
        opened.add(id(self))
        most[0] = max(most[0], len(opened))
        return enter(self)

    def closed(self: ShardWriter) -> None:
        time.sleep(0.02)
        close(self)
        opened.discard(id(self))

    monkeypatch.setattr(ShardWriter, "__enter__", entered)
    monkeypatch.setattr(ShardWriter, "_close", closed)
    (report,) = extract(
        toy.request(tmp_path / "cache", root=root, splits=("train",), shard_videos=1, calibration_videos=24)
    )
    assert (report.videos, len(report.failed) > 20) == (24, True)
    assert 1 < most[0] <= OPEN_SHARDS_MOST


def test_too_many_open_files_is_said_with_what_to_do(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(shard_module, "open_owned_part", refused)
    with pytest.raises(CacheError, match=r"Too many open files: this process may have \d+ at once.*ulimit -n"):
        extract(toy.request(tmp_path / "cache", splits=("val",)))
