"""kill -9 at random moments: what is resumed equals what was never disturbed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.writer import SplitWriter

VIDEOS, KILLS = 24, 12


def _write_until_killed(world: Any, folder: Path, contents: list[Any]) -> None:
    """In a child: go on with the split, slowly enough to be killed anywhere."""
    split = open_split(folder, "train")
    with SplitWriter(split) as writer:
        for k in writer.pending():
            with writer.shard(k) as shard:
                for row in shard.rows:
                    shard.fail(row, world.bad()) if row == 5 else world.add_content(shard, row, contents[row])
                    time.sleep(0.001)


def test_a_writer_killed_again_and_again_ends_with_the_same_bytes(world: Any, tmp_path: Path) -> None:
    calm = world.fill(world.make(tmp_path / "calm", videos=VIDEOS), failing=(5,))
    split = world.make(tmp_path / "rough", videos=VIDEOS)
    contents = [world.content_of(split, row) for row in range(VIDEOS)]  # before forking: torch has threads
    moments = random.Random(4)
    killed = 0
    for _ in range(KILLS):
        child = os.fork()
        if not child:
            try:
                _write_until_killed(world, tmp_path / "rough", contents)
            finally:
                os._exit(0)
        time.sleep(moments.uniform(0.001, 0.05))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        rows = Rows(split)  # whatever is marked is whole, at any moment
        for row in rows.stored_rows()[:4]:
            assert rows.views_of(int(row)) == world.content_of(split, int(row))[3]
    assert killed >= 3, f"only {killed} of {KILLS} were killed in time"
    world.fill(split, failing=(5,))
    ours, theirs = world.files_of(split.path), world.files_of(calm.path)
    del ours["zarr.json"], theirs["zarr.json"]  # identity and time of making differ
    assert ours == theirs
    with CacheReader(split) as reader:
        stored = reader.stored_rows().tolist()
        assert stored == [row for row in range(VIDEOS) if row != 5]
        assert reader.read(stored, [1] * len(stored)).codes.shape[0] == VIDEOS - 1


def test_every_byte_is_durable_before_the_shard_is_marked(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = world.make(tmp_path)
    events: list[tuple[str, str]] = []
    fsync, pwrite, rename = os.fsync, os.pwrite, os.rename

    def named(fd: int) -> str:
        return str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(tmp_path))

    def noting_fsync(fd: int) -> None:
        events.append(("sync", named(fd)))
        fsync(fd)

    def noting_pwrite(fd: int, payload: bytes, offset: int) -> int:
        events.append(("write", named(fd)))
        return pwrite(fd, payload, offset)

    def noting_rename(name: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        events.append(("name", f"{named(dst_dir_fd)}/{target}"))
        rename(name, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "pwrite", noting_pwrite)
    monkeypatch.setattr(os, "rename", noting_rename)
    with SplitWriter(split) as writer, writer.shard(1) as shard:
        for row in shard.rows:
            world.add(shard, split, row)

    mark = events.index(("write", "train.ledger.jsonl"))
    assert events[mark + 1 :][0] == ("sync", "train.ledger.jsonl")
    names = [what for kind, what in events if kind == "name"]
    assert names == [f"train/{array.key(1)}" for array in split.layout.owned.values()]
    assert names[-1] == "train/state/c/1"
    for name in names:
        written = max(i for i, event in enumerate(events) if event == ("write", name + ".part"))
        synced = events.index(("sync", name + ".part"))
        given = events.index(("name", name))
        folder = max(i for i, event in enumerate(events) if event == ("sync", str(Path(name).parent)))
        assert written < synced < given < folder < mark
