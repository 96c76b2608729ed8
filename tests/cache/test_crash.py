"""kill -9 at random moments: what is resumed equals what was never disturbed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.reader import CacheReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.writer import SplitWriter

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
