"""Writing: whole shards or nothing, one owner, and a full disk says so."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline import disk
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.writer import ShardWriter, SplitWriter
from vidxfer.pipeline.errors import CacheBusy, CacheError, CacheFull, ClipError


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


def test_the_order_of_arrival_does_not_change_a_byte(world: Any, tmp_path: Path) -> None:
    straight = world.fill(world.make(tmp_path / "a"), failing=(1,))
    shuffled = world.make(tmp_path / "b")
    with SplitWriter(shuffled) as writer:
        for k in (2, 0, 1):
            with writer.shard(k) as shard:
                for row in reversed(shard.rows):
                    shard.fail(row, world.bad()) if row == 1 else world.add(shard, shuffled, row)
        assert writer.pending() == []
    ours, theirs = world.files_of(straight.path), world.files_of(shuffled.path)
    assert {k: v for k, v in ours.items() if k != "zarr.json"} == {k: v for k, v in theirs.items() if k != "zarr.json"}
    crcs = [{k: r.crc32c for k, r in split.ledger.finished().items()} for split in (straight, shuffled)]
    assert crcs[0] == crcs[1]


def test_a_row_that_was_forgotten_added_twice_or_foreign_is_an_error(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path)
    with SplitWriter(split) as writer:
        with (
            pytest.raises(ValueError, match=r"rows \[1, 2\] of shard 0 were neither added nor failed"),
            writer.shard(0) as s,
        ):
            world.add(s, split, 0)
        with pytest.raises(ValueError, match="already added"), writer.shard(0) as s:
            _ = [world.add(s, split, row) for row in (0, 0)]
        with pytest.raises(ValueError, match=r"row 3 is not in shard 0, which has rows 0\.\.2"), writer.shard(0) as s:
            world.add(s, split, 3)
        assert writer.pending() == [0, 1, 2]
    assert not parts(tmp_path)
    assert not [p for p in (split.path / "tokens/c").rglob("*") if p.is_file()]


def test_content_of_another_shape_or_type_is_refused(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path)
    codes, scale, embedding, views = world.content_of(split, 0)
    with ShardWriterThatFails(split) as shard:
        for arguments, words in (
            ((codes[:, :2], scale, embedding, views), "tokens has shape"),
            ((codes.float(), scale, embedding, views), "codes are float32, expected int8"),
            ((codes, scale.float(), embedding, views), "scale are float32, expected float16"),
            ((codes, None, embedding, views), "scale"),
            ((codes, scale, embedding[:1], views), "embedding has shape"),
            ((codes, scale, embedding, views[:1]), "expected 2 views of 4 dense frames"),
        ):
            with pytest.raises(ValueError, match=words):
                shard.add(0, *arguments)
        with pytest.raises(ClipError, match="embedding is not finite"):
            shard.add(0, codes, scale, embedding * 1e9, views)


class ShardWriterThatFails(ShardWriter):
    """Leaves without committing, as after an error that the test has seen."""

    def __init__(self, split: Any) -> None:
        super().__init__(split, 0)

    def __exit__(self, *_: object) -> None:
        super().__exit__(KeyboardInterrupt)


def test_a_second_writer_is_told_who_holds_the_split(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path)
    with SplitWriter(split), pytest.raises(CacheBusy, match=rf"pid {os.getpid()} on .* is writing this split"):
        SplitWriter(split).__enter__()
    with SplitWriter(split), ShardWriterThatFails(split), pytest.raises(CacheBusy, match="writing this shard"):
        ShardWriter(split, 0).__enter__()
    with SplitWriter(split) as writer:
        assert writer.pending() == [0, 1, 2]


def test_what_a_dead_writer_left_is_swept_but_not_what_a_living_one_holds(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path)
    leftover = split.path / "tokens/c/1/0/0/0/0/0.part"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"torn")
    with ShardWriterThatFails(split):
        held = set(parts(tmp_path)) - {leftover}
        with SplitWriter(split):
            assert set(parts(tmp_path)) == held
            assert len(held) == len(split.layout.owned)
    assert not parts(tmp_path)


def _write_elsewhere(folder: Path, world: Any, shard: int) -> Any:
    split = open_split(folder, "train")
    with ShardWriter(split, shard) as writer:
        for row in writer.rows:
            world.add(writer, split, row)
    return writer.record


def test_a_shard_written_by_another_process_counts_when_its_record_is_noted(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path)
    with SplitWriter(split) as writer:
        pipe, far = multiprocessing.Pipe()
        child = os.fork()
        if not child:
            far.send(_write_elsewhere(tmp_path, world, 1))
            os._exit(0)
        assert pipe.poll(20)
        record = pipe.recv()
        os.waitpid(child, 0)
        assert writer.pending() == [0, 1, 2]  # the bytes are there, the mark is not
        assert CacheReader(split).stored_rows().tolist() == []
        writer.record(record)
        assert writer.pending() == [0, 2]
    pipe.close()
    far.close()
    assert CacheReader(split).stored_rows().tolist() == [3, 4, 5]


def test_writing_a_shard_again_takes_its_mark_back_first(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path))
    with SplitWriter(split) as writer:
        with pytest.raises(KeyboardInterrupt), writer.shard(1):
            raise KeyboardInterrupt
        assert writer.pending() == [1]
    assert world.fill(split).ledger.finished()[1].stored == 3


@pytest.mark.parametrize("name", ["tokens", "scale", "embedding", "crop", "state"])
def test_a_deleted_or_shortened_file_makes_its_shard_pending(world: Any, tmp_path: Path, name: str) -> None:
    split = world.fill(world.make(tmp_path))
    before = world.files_of(split.path)
    os.truncate(split.path / split.layout.owned[name].key(0), 5)
    (split.path / split.layout.owned[name].key(2)).unlink()
    with SplitWriter(split) as writer:
        assert writer.pending() == [0, 2]
    world.fill(split)
    assert world.files_of(split.path) == before


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_says_so_and_marks_nothing(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    split = world.make(tmp_path)

    def full(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    def fill_while(patched: pytest.MonkeyPatch, shard: ShardWriter) -> None:
        patched.setattr(disk.os, call, full)
        for row in shard.rows:
            world.add(shard, split, row)

    with SplitWriter(split) as writer:
        with monkeypatch.context() as patched:
            with (
                pytest.raises(CacheFull, match=r"disk is full: [\d,]+ bytes needed, [\d,]+ free"),
                writer.shard(0) as shard,
            ):
                fill_while(patched, shard)
            assert not parts(tmp_path)
        assert writer.pending() == [0, 1, 2]
    assert world.fill(split).ledger.finished().keys() == {0, 1, 2}


def test_a_disk_that_is_full_beforehand_is_noticed_before_a_byte_is_written(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = world.make(tmp_path)
    usage = disk.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage._replace(free=100))
    with SplitWriter(split) as writer, pytest.raises(CacheFull, match="100 free"), writer.shard(0):
        pytest.fail("the shard was begun")


def test_a_real_small_disk_fills_up_and_the_run_goes_on_after_room_is_made(world: Any, tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    options = "size=1400k"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("cannot mount a small disk here: " + done.stderr.decode().strip())
    try:
        big = {"tokens": 64, "channels": 64, "views": 1}
        split = world.make(mount, videos=40, shard_videos=10, **big)
        ballast = mount / "ballast"
        ballast.write_bytes(bytes(400_000))
        with pytest.raises(CacheFull, match="the disk is full"):
            world.fill(split)
        kept = split.ledger.finished()
        assert 0 < len(kept) < 4
        assert not parts(mount)
        ballast.unlink()
        done = subprocess.run(["mount", "-o", "remount,size=8m", str(mount)], capture_output=True, check=False)
        assert not done.returncode
        world.fill(split)
        other = world.fill(world.make(tmp_path / "roomy", videos=40, shard_videos=10, **big))
        ours, theirs = world.files_of(split.path), world.files_of(other.path)
        assert all(ours[k] == theirs[k] for k in theirs if k != "zarr.json")
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_folder_that_cannot_be_written_says_so(world: Any, tmp_path: Path) -> None:
    if os.geteuid():
        tmp_path.chmod(0o500)
    split = world.make(tmp_path / "cache") if not os.geteuid() else None
    if split is None:
        with pytest.raises(CacheError, match=r"cannot be written \(Permission denied\)\. Choose another folder"):
            world.make(tmp_path / "cache")
        return
    os.seteuid(65534)  # root may write anywhere; nobody may not
    try:
        with pytest.raises(CacheError, match=r"cannot be written \(Permission denied\)\. Choose another folder"):
            SplitWriter(split).__enter__()
        with pytest.raises(CacheError, match="cannot be written"):
            world.make(tmp_path / "other")
    finally:
        os.seteuid(0)
