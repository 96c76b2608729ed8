"""Looking for damage: what is found, and that extraction then mends it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.read.check import damage_of
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.write.writer import SplitWriter


def test_a_whole_cache_has_no_damage_and_neither_has_a_pending_shard(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path)
    assert damage_of(CacheReader(split), 0) == []
    world.fill(split, failing=(1,))
    with CacheReader(split) as reader:
        assert [damage_of(reader, shard) for shard in range(3)] == [[], [], []]


@pytest.mark.parametrize("name", ["tokens", "scale", "embedding"])
def test_a_flipped_bit_is_found_and_mended_by_writing_the_shard_again(world: Any, tmp_path: Path, name: str) -> None:
    split = world.fill(world.make(tmp_path))
    before = world.files_of(split.path)
    path = split.path / split.layout.owned[name].key(1)
    damaged = bytearray(path.read_bytes())
    damaged[7] ^= 1
    path.write_bytes(damaged)
    with SplitWriter(split) as writer, CacheReader(split) as reader:
        assert writer.pending() == []  # lengths and index are right: only reading finds it
        assert [len(damage_of(reader, shard)) for shard in range(3)] == [0, 1, 0]
        assert "vidéo 3, 動画" in damage_of(reader, 1)[0]
        writer.drop(1, damage_of(reader, 1)[0])
        assert writer.pending() == [1]
    world.fill(split)
    assert world.files_of(split.path) == before


def test_files_that_are_missing_short_or_of_another_run_are_found(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path / "a"))
    other = world.fill(world.make(tmp_path / "b"), failing=(3,))
    owned = split.layout.owned
    with CacheReader(split) as reader:
        (split.path / owned["tokens"].key(0)).unlink()
        os.truncate(split.path / owned["scale"].key(0), 3)
        (split.path / owned["state"].key(1)).write_bytes((other.path / owned["state"].key(1)).read_bytes())
        assert [line.rpartition(": ")[2] for line in damage_of(reader, 0)] == [
            "missing",
            "length or crc32c is not what the ledger says",
        ]
        assert "state/c/1: length or crc32c" in damage_of(reader, 1)[0]


@pytest.mark.parametrize(("codec", "array"), [("int8", "scale"), ("float16", "tokens")])
def test_a_number_that_is_none_is_found_although_its_checksum_fits(
    world: Any, tmp_path: Path, codec: str, array: str
) -> None:
    split = world.make(tmp_path, codec=codec)
    with SplitWriter(split) as writer, writer.shard(1) as shard:
        for row in shard.rows:
            codes, scale, *rest = world.content_of(split, row)
            if row == 4:  # as a codec with a mistake would hand it over
                (scale if array == "scale" else codes)[1, 1, 0] = float("nan")
            shard.add(row, codes, scale, *rest)
    with CacheReader(split) as reader:
        found = damage_of(reader, 1)
    assert found == [f"{split.path / array}: video {split.video_ids[4]}, view 1, layers 3: not finite"]
