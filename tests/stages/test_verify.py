"""`vidxfer cache verify`: damage anywhere is found and named, taken back on request, mended by the next extraction."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.layout import MAY_LACK
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheBusy, CacheError, UsageError
from vidxfer.stages.extract import extract
from vidxfer.stages.upkeep.verify import VerifyRequest, verify


@pytest.fixture
def cache(toy: Any, tmp_path: Path) -> Path:
    """A copy of the toy world's int8 cache: 24 training and 16 validation videos, 5 per shard."""
    return Path(shutil.copytree(toy.int8, tmp_path / "cache"))


def shard_file(cache: Path, split: str, array: str, shard: int) -> Path:
    opened = open_split(cache, split)
    return opened.path / opened.layout.owned[array].key(shard)


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def test_a_whole_cache_is_read_to_the_last_byte(cache: Path, invoke: Any) -> None:
    train, val = verify(VerifyRequest(cache=cache))
    assert (train.split, train.shards, train.checked, train.pending, train.stored) == ("train", 5, 5, 0, 24)
    assert (val.split, val.shards, val.checked, val.pending, val.stored) == ("val", 4, 4, 0, 16)
    assert train.damage == val.damage == ()
    files = [p for p in (cache / "train").rglob("*") if p.is_file() and "/c/" in p.as_posix()]
    fixed = sum(p.stat().st_size for p in files if p.relative_to(cache / "train").parts[0] in (*FIXED, *MAY_LACK))
    assert train.bytes == sum(p.stat().st_size for p in files) - fixed
    result = invoke("cache", "verify", "--cache", cache)
    assert result.exit_code == 0
    assert "The cache is whole" in result.stdout


FIXED = ("label", "text", "channel_mean", "channel_std", "video_id")
"""Arrays that belong to no shard; they are checked when a split is opened."""


@pytest.mark.parametrize("array", ["tokens", "scale", "embedding", "state", "crop", "frame_index", "source_px"])
def test_one_flipped_bit_is_found_named_taken_back_and_mended(
    toy: Any, cache: Path, content: Any, invoke: Any, array: str
) -> None:
    path = shard_file(cache, "train", array, 2)
    flip(path, 3)
    result = invoke("cache", "verify", "--cache", cache)
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("damaged: ")]
    assert line.startswith(f"damaged: train shard 2: {path}")
    if array in ("tokens", "scale"):
        first = open_split(cache, "train").video_ids[10]
        assert f"video {first}, view 0, layer 0: the bytes do not match their crc32c" in line
    assert "1 damaged shards: take them back with --drop-damaged" in result.stdout
    assert len(open_split(cache, "train").ledger.finished()) == 5, "nothing is changed without being asked"

    result = invoke("cache", "verify", "--cache", cache, "--drop-damaged", "--json")
    assert result.exit_code == 1
    train, val = json.loads(result.stdout)
    assert [one["shard"] for one in train["damage"]] == [2]
    assert train["damage"][0]["dropped"] is True
    assert val["damage"] == []
    result = invoke("cache", "verify", "--cache", cache)
    assert (result.exit_code, "1 shards are pending" in result.stdout) == (1, True)
    extract(toy.request(cache))
    assert invoke("cache", "verify", "--cache", cache).exit_code == 0
    once = content(toy.int8)
    mended = {name: value for name, value in content(cache).items() if not name.endswith("ledger.jsonl")}
    assert mended == {name: once[name] for name in mended}


def test_files_gone_or_cut_off_are_found(cache: Path) -> None:
    shard_file(cache, "val", "tokens", 0).unlink()
    os.truncate(shard_file(cache, "val", "scale", 1), 9)
    shard_file(cache, "val", "state", 3).unlink()
    _, val = verify(VerifyRequest(cache=cache))
    assert [damage.shard for damage in val.damage] == [0, 1, 3]
    assert val.damage[0].found[0].endswith("tokens/c/0/0/0/0/0/0: missing")
    assert "length or crc32c" in val.damage[1].found[0]
    assert "missing" in val.damage[2].found[0]


def test_damage_in_several_videos_is_named_by_each_group_that_is_read(cache: Path) -> None:
    path = shard_file(cache, "train", "tokens", 0)
    flip(path, 0)
    flip(path, path.stat().st_size * 9 // 10)
    train, _ = verify(VerifyRequest(cache=cache))
    (damage,) = train.damage
    assert len(damage.found) == 2


def test_pending_shards_are_not_whole_unless_that_is_allowed(cache: Path, invoke: Any) -> None:
    with SplitWriter(open_split(cache, "train")) as writer:
        writer.drop(1, "a test")
    result = invoke("cache", "verify", "--cache", cache)
    assert result.exit_code == 1
    assert "1 shards are pending: `vidxfer extract` goes on" in result.stdout
    assert "whole" not in result.stdout
    assert invoke("cache", "verify", "--cache", cache, "--allow-incomplete").exit_code == 0
    assert invoke("cache", "verify", "--cache", cache, "--split", "val").exit_code == 0


def test_a_split_that_is_being_written_is_checked_but_never_changed(cache: Path) -> None:
    flip(shard_file(cache, "train", "tokens", 4), 0)
    with SplitWriter(open_split(cache, "train")):
        train, _ = verify(VerifyRequest(cache=cache))
        assert [damage.dropped for damage in train.damage] == [False]
        with pytest.raises(CacheBusy):
            verify(VerifyRequest(cache=cache, drop_damaged=True))


def test_no_cache_and_no_such_split_are_said(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="vidxfer extract"):
        verify(VerifyRequest(cache=tmp_path / "none"))
    with pytest.raises(UsageError, match="no split 'test'; it has train, val"):
        verify(VerifyRequest(cache=cache, splits=("test",)))
