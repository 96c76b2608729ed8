"""Shards written beside their split: only the lock's holder moves them in, and no crash costs a whole shard."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write import staging
from vidxfer.pipeline.cache.write.shard_writer import ShardWriter
from vidxfer.pipeline.cache.write.staging import SealedShard, seal, staging_folder, was_begun
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheCorrupt


def written(world: Any, split: Split, shard: int, attempt: str = "a", *, failing: tuple[int, ...] = ()) -> SealedShard:
    """A shard in a folder of its own, sealed; what a worker does."""
    folder = staging_folder(split, attempt)
    with ShardWriter(split, shard, folder) as writer:
        for row in writer.rows:
            if row in failing:
                writer.fail(row, world.bad())
            else:
                world.add(writer, split, row)
    assert writer.record is not None
    return seal(split, folder, writer.record)


def mended(world: Any, split: Split, shard: int, rows: tuple[int, ...]) -> SealedShard:
    """The shard with `rows` made anew and the others taken over from its present files."""
    folder, old = staging_folder(split, "again"), split.ledger.finished()[shard]
    with ShardWriter(split, shard, folder) as writer:
        writer.copy([row for row in writer.rows if row not in rows], old)
        for row in rows:
            world.add(writer, split, row)
    assert writer.record is not None
    return seal(split, folder, writer.record)


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power, and a busy disk takes seconds to sync; test_crash.py looks at the order of syncs."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def calm(world: Any, tmp_path: Path) -> dict[str, bytes]:
    """Files of a split that was written in place, undisturbed."""
    return arrays(world, world.fill(world.make(tmp_path / "calm")))


def arrays(world: Any, split: Split) -> dict[str, bytes]:
    found: dict[str, bytes] = world.files_of(split.path)
    del found["zarr.json"]  # identity and time of making differ
    return found


def hidden(split: Split) -> list[str]:
    return sorted(path.name for path in split.path.parent.iterdir() if path.name.startswith("."))


def test_a_shard_that_was_marked_before_the_crash_is_not_marked_again(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = world.make(tmp_path)
    with monkeypatch.context() as patched, SplitWriter(split) as writer:
        patched.setattr(staging, "remove", lambda *_, **__: None)  # killed between the mark and the tidying
        writer.adopt(written(world, split, 0))
    ledger = split.ledger.path.read_bytes()
    assert [name for name in hidden(split) if name.endswith(".commit")]
    with SplitWriter(split) as writer:
        assert writer.pending() == [1, 2]
    assert split.ledger.path.read_bytes() == ledger
    assert hidden(split) == []


def test_adopted_shards_have_the_bytes_of_shards_written_in_place(
    world: Any, tmp_path: Path, calm: dict[str, bytes]
) -> None:
    split = world.make(tmp_path / "staged")
    with SplitWriter(split) as writer:
        for sealed in [written(world, split, shard) for shard in (2, 0, 1)]:
            assert sealed.record.shard not in split.ledger.finished(), "marked before it was moved in"
            writer.adopt(sealed)
        assert writer.pending() == []
    assert arrays(world, split) == calm
    assert hidden(split) == []


class PowerCut(BaseException):
    """The process ends here."""


def cut_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Let `calls` renames and ledger writes happen, then end."""
    left = calls
    rename, write = os.rename, os.pwrite

    def count() -> None:
        nonlocal left
        if left == 0:
            raise PowerCut
        left -= 1

    def counted_rename(name: str, target: str, **folders: int) -> None:
        count()
        rename(name, target, **folders)

    def counted_write(fd: int, payload: bytes, offset: int) -> int:
        count()
        return write(fd, payload, offset)

    monkeypatch.setattr(os, "rename", counted_rename)
    monkeypatch.setattr(os, "pwrite", counted_write)


@pytest.mark.parametrize("again", [False, True], ids=["first time", "over an older one"])
def test_a_crash_at_any_step_of_moving_in_is_finished_by_the_next_holder(
    world: Any, tmp_path: Path, calm: dict[str, bytes], again: bool
) -> None:
    cut, steps = True, 0
    while cut:
        split = world.make(tmp_path / f"rough{steps}")
        if again:
            world.fill(split, failing=(1,))
        writer = SplitWriter(split)
        writer.__enter__()
        sealed = mended(world, split, 0, (1,)) if again else written(world, split, 0)
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, steps)
            try:
                writer.adopt(sealed)
                cut = False
            except PowerCut:
                writer._lock.__exit__()  # what the end of a process does
        if not cut:
            writer.__exit__()
        with SplitWriter(split) as after:
            assert 0 not in after.pending()
        assert hidden(split) == []
        if again and steps == 0:
            assert split.ledger.finished()[0].failed != (), "the older shard stands until the new one moves in"
        else:
            assert split.ledger.finished()[0] == sealed.record
            ours = arrays(world, split)
            assert [name for name in calm if "/c/0" in name and ours[name] != calm[name]] == []
        steps += 1
    assert steps > 12, "too few steps were cut"


def test_a_sealed_shard_nobody_moved_in_is_not_made_again_and_unsealed_ones_go(
    world: Any, tmp_path: Path, calm: dict[str, bytes]
) -> None:
    split = world.make(tmp_path / "orphans")
    written(world, split, 0)
    torn = written(world, split, 1)
    assert torn.folder is not None
    (torn.folder / "shard.json").unlink()
    short = written(world, split, 2)
    assert short.folder is not None
    os.truncate(short.folder / split.layout.owned["tokens"].key(2), 100)
    with SplitWriter(split) as writer:
        assert writer.pending() == [1, 2]
    assert hidden(split) == []
    world.fill(split)
    assert arrays(world, split) == calm


def test_a_process_that_ends_too_late_changes_nothing(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path / "zombie")
    folder = staging_folder(split, "lost")
    with ShardWriter(split, 0, folder) as late:
        for row in late.rows:
            world.add(late, split, row)
        assert was_begun(split, "lost")
        world.fill(split, failing=(1,))
        before = arrays(world, split)
        with SplitWriter(split):  # the next command sweeps what it finds
            assert not was_begun(split, "lost")
        folder.mkdir()  # so that leaving the block meets no folder of anybody else
        for array in split.layout.owned.values():
            (folder / array.key(0)).parent.mkdir(parents=True)
            (folder / array.key(0)).with_name(Path(array.key(0)).name + ".part").touch()
    assert late.record is not None
    seal(split, folder, late.record)
    with SplitWriter(split) as writer:
        assert writer.pending() == []
    assert arrays(world, split) == before
    assert hidden(split) == []


def test_a_second_sealed_copy_of_a_finished_shard_does_not_stay(world: Any, tmp_path: Path) -> None:
    """A worker that died when it had sealed a shard, and another that made it meanwhile."""
    split = world.make(tmp_path / "twice")
    with SplitWriter(split) as writer:
        first, second, pending = (written(world, split, shard) for shard in (0, 0, 1))
        writer.adopt(second)
    assert first.folder is not None
    assert pending.folder is not None
    assert hidden(split) == [pending.folder.name]


def test_a_writer_whose_folder_was_swept_fails_and_leaves_nothing(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path / "swept")
    folder = staging_folder(split, "lost")
    with pytest.raises(FileNotFoundError), ShardWriter(split, 0, folder) as writer:  # noqa: PT012
        for row in writer.rows:
            world.add(writer, split, row)
        shutil.rmtree(folder)
    assert hidden(split) == []


def test_a_sealed_shard_of_another_split_of_that_name_is_not_moved_in(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path / "first")
    old = written(world, split, 0)
    assert old.folder is not None
    other = world.make(tmp_path / "second")
    shutil.copytree(old.folder, other.path.parent / old.folder.name)
    shutil.copytree(old.folder, other.path.parent / ".train.0.commit")
    with SplitWriter(other) as writer:
        assert writer.pending() == [0, 1, 2]
    assert hidden(other) == []


def test_a_shard_with_one_row_made_anew_equals_one_that_never_failed(
    world: Any, tmp_path: Path, calm: dict[str, bytes]
) -> None:
    split = world.fill(world.make(tmp_path / "mended"), failing=(1, 5))
    assert arrays(world, split) != calm
    with SplitWriter(split) as writer:
        for shard, row in ((0, 1), (1, 5)):
            writer.adopt(mended(world, split, shard, (row,)))
    assert arrays(world, split) == calm
    records = split.ledger.finished()
    assert [(records[shard].stored, records[shard].failed) for shard in range(3)] == [(3, ()), (3, ()), (1, ())]
    assert records[0].notes == {"decoder": {"pyav-pts": 3}}


def test_damaged_rows_are_not_taken_over(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path / "damaged"), failing=(1,))
    tokens = split.path / split.layout.owned["tokens"].key(0)
    raw = bytearray(tokens.read_bytes())
    raw[3] ^= 16
    tokens.write_bytes(raw)
    before = arrays(world, split)
    with pytest.raises(CacheCorrupt, match="cache verify --drop-damaged"):
        mended(world, split, 0, (1,))
    assert arrays(world, split) == before
    assert 0 in split.ledger.finished()


def test_a_reader_that_was_open_goes_on_with_what_it_opened(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path / "read"), failing=(1,))
    with CacheReader(split) as reader:
        first = reader.read([0], [0]).codes.clone()
        with SplitWriter(split) as writer:
            writer.adopt(mended(world, split, 0, (1,)))
        assert reader.read([0], [0]).codes.equal(first)
    with CacheReader(split) as reader:
        assert 1 in reader.stored_rows().tolist()
