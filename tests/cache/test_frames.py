"""Dense frames in a cache: what goes in comes out, in any reader, after any crash, and damage is found."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from vidxfer.pipeline.cache.frames import FrameStore, expect_same_frames, pack
from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.read.check import damage_of
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheCorrupt, CacheError, CacheMismatch

STORE = FrameStore(quality=90, subsampling="4:4:4", most_bytes=700)
WINDOWS = replace(STORE, window=5)


@pytest.fixture(scope="module", params=[STORE, WINDOWS], ids=["dense", "windows"])
def made(request: Any, world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven videos in shards of three, the second of them failed, frames kept; only to be copied."""
    folder: Path = tmp_path_factory.mktemp("made")
    world.fill(world.make(folder, frames=request.param), failing=(1,))
    return folder


@pytest.fixture
def split(made: Path, tmp_path: Path) -> Any:
    """A copy of `made`, to be damaged."""
    shutil.copytree(made, tmp_path / "copy")
    return open_split(tmp_path / "copy", "train")


def read_back(split: Any, row: int) -> list[list[bytes]]:
    frames = FrameReader(Rows(split))
    return [[bytes(file) for file in frames.files(row, view)] for view in range(split.spec.stored_views)]


def file_of(split: Any, shard: int) -> Path:
    path: Path = split.path / split.layout.owned["frames"].key(shard)
    return path


def test_every_frame_comes_back_as_it_went_in(world: Any, split: Any) -> None:
    opened = open_split(split.path.parent, "train")
    assert opened.frames in (STORE, WINDOWS)
    for row in (0, 2, 3, 4, 5, 6):
        assert read_back(opened, row) == world.jpegs_of(split, row)
    some = FrameReader(Rows(opened)).files(4, 1, (3, 0))
    assert [bytes(file) for file in some] == [world.jpegs_of(split, 4)[1][i] for i in (3, 0)]


def test_plain_zarr_reads_the_frames_without_us(world: Any, split: Any) -> None:
    group = zarr.open_group(split.path, mode="r")
    for row in (0, 2, 6):
        for view in range(2):
            rows, lengths = group["frames"][row, view], group["frame_bytes"][row, view]
            found = [bytes(one[:length]) for one, length in zip(rows, lengths, strict=True) if length]
            assert found == world.jpegs_of(split, row)[view]
            assert not any(one[length:].any() for one, length in zip(rows, lengths, strict=True))
    assert not group["frames"][1].any()
    assert not group["frame_bytes"][1].any()
    assert group["frames"].metadata.dimension_names == (
        "video",
        "view",
        "kept" if split.frames.window else "dense",
        "byte",
    )


def test_the_bytes_do_not_depend_on_the_order_of_arrival(world: Any, tmp_path: Path, split: Any) -> None:
    other = world.make(tmp_path / "backwards", frames=split.frames)
    with SplitWriter(other) as writer:
        for k in writer.pending():
            with writer.shard(k) as shard:
                for row in reversed(shard.rows):
                    shard.fail(row, world.bad()) if row == 1 else world.add(shard, other, row)
    ours, theirs = world.files_of(split.path), world.files_of(other.path)
    del ours["zarr.json"], theirs["zarr.json"]
    assert ours == theirs


def test_zeros_behind_the_frames_take_no_room(world: Any, tmp_path: Path) -> None:
    roomy = replace(STORE, most_bytes=100_000)
    split = world.make(tmp_path, videos=3, frames=roomy)
    small = [[b"\xff\xd8" + bytes([row]) * 40 for row in range(4)]] * 2
    with SplitWriter(split) as writer, writer.shard(0) as shard:
        for row in shard.rows:
            world.add_content(shard, row, world.content_of(split, row), small)
    assert file_of(split, 0).stat().st_size < 4000
    assert read_back(split, 2) == small


def test_the_ledger_knows_the_length_of_every_file(world: Any, split: Any) -> None:
    for shard, record in split.ledger.finished().items():
        sizes = {name: (split.path / array.key(shard)).stat().st_size for name, array in split.layout.owned.items()}
        assert sum(sizes.values()) == record.bytes
        for name, array in split.layout.owned.items():
            assert split.layout.file_bytes(array, shard, record.bytes) == sizes[name]
    with SplitWriter(split) as writer:
        assert writer.pending() == []
        os.truncate(file_of(split, 1), file_of(split, 1).stat().st_size - 1)
        assert writer.pending() == [1]
        file_of(split, 2).unlink()
        assert writer.pending() == [1, 2]
    assert summary(split.path.parent)["train"]["frames"] == split.frames.to_dict()


def test_a_row_without_its_frames_is_refused(world: Any, tmp_path: Path) -> None:
    with_frames = world.make(tmp_path / "with", frames=STORE)
    without = world.make(tmp_path / "without")
    files = world.jpegs_of(with_frames, 0)
    cases = [(with_frames, None, "the row says otherwise"), (without, files, "keeps no dense frames")]
    cases += [(with_frames, files[:1], r"expected 2 views of 4 JPEGs, not \[4\]")]
    cases += [(with_frames, [files[0], [b"x" * 701, *files[1][1:]]], "701 bytes, the place of each holds 1 to 700")]
    for split, frames, text in cases:
        writer = SplitWriter(split)
        with writer, pytest.raises(ValueError, match=text), writer.shard(0) as shard:
            world.add_content(shard, 0, world.content_of(split, 0), frames)
        assert not list(split.path.rglob("*.part"))


def test_a_writer_killed_in_the_middle_of_a_shard_ends_with_the_same_bytes(world: Any, tmp_path: Path) -> None:
    videos = 12
    calm = world.fill(world.make(tmp_path / "calm", videos=videos, frames=WINDOWS), failing=(5,))
    split = world.make(tmp_path / "rough", videos=videos, frames=WINDOWS)
    contents = [(world.content_of(split, row), world.jpegs_of(split, row)) for row in range(videos)]
    moments, killed = random.Random(7), 0
    for _ in range(8):
        child = os.fork()
        if not child:
            try:
                with SplitWriter(split) as writer:
                    for k in writer.pending():
                        with writer.shard(k) as shard:
                            for row in shard.rows:
                                time.sleep(0.002)
                                shard.fail(row, world.bad()) if row == 5 else world.add_content(
                                    shard, row, *contents[row]
                                )
            finally:
                os._exit(0)
        time.sleep(moments.uniform(0.002, 0.03))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        for row in Rows(split).stored_rows()[:3]:  # whatever is marked is whole, at any moment
            assert read_back(split, int(row)) == contents[int(row)][1]
    assert killed >= 2, f"only {killed} of 8 were killed in time"
    world.fill(split, failing=(5,))
    ours, theirs = world.files_of(split.path), world.files_of(calm.path)
    del ours["zarr.json"], theirs["zarr.json"]
    assert ours == theirs


def test_every_flipped_bit_is_found_by_the_reader_and_by_the_check(split: Any) -> None:
    path = file_of(split, 0)
    whole = path.read_bytes()
    flips = random.Random(3)
    for _ in range(40):
        at = flips.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << flips.randrange(8)
        path.write_bytes(damaged)
        with CacheReader(split) as reader:
            assert damage_of(reader, 0), f"a flip at byte {at} of {len(whole)} was not found by the check"
        with pytest.raises(CacheCorrupt, match="crc32c"):
            [read_back(split, row) for row in (0, 2)]
    path.write_bytes(whole)
    with CacheReader(split) as reader:
        assert damage_of(reader, 0) == []


def test_damage_is_named_with_its_file_and_video(split: Any) -> None:
    path = file_of(split, 1)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[10] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(CacheCorrupt, match=r"frames/c/1/0/0/0: video vidéo 3, 動画, view 0: .*crc32c.*--drop-damaged"):
        read_back(split, 3)
    with pytest.raises(ValueError, match="checksum"):  # zarr-python finds it too
        zarr.open_group(split.path, mode="r")["frames"][3, 0]
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CacheCorrupt, match="does not match its crc32c"):
        read_back(split, 3)
    path.unlink()
    with pytest.raises(CacheCorrupt, match="missing though its shard is finished"):
        read_back(split, 3)
    with CacheReader(split) as reader:
        assert damage_of(reader, 1) == [f"{path}: missing"]


def test_a_cache_without_frames_says_how_to_get_them(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path))
    assert "frames" not in json.loads((split.path / "zarr.json").read_text())["attributes"]["vidxfer"]
    with pytest.raises(CacheError, match=r"keeps no dense frames\. `vidxfer extract --with-frames` stores them"):
        FrameReader(Rows(split))
    with pytest.raises(CacheError, match=r"made without dense frames.*Continue without --with-frames.*another folder"):
        expect_same_frames(split.path, None, STORE)
    with pytest.raises(CacheMismatch, match=r"frames.quality: .*90.*75"):
        expect_same_frames(split.path, STORE, replace(STORE, quality=75))
    expect_same_frames(split.path, STORE, None)


def test_settings_of_a_later_version_are_refused(split: Any) -> None:
    file = split.path / "zarr.json"
    text = file.read_text()
    assert '"format": "jpeg"' in text
    file.write_text(text.replace('"format": "jpeg"', '"format": "jpeg-xl"'))
    with pytest.raises(CacheError, match="dense frames are not kept as this version of vidxfer knows it"):
        open_split(split.path.parent, "train")


@pytest.mark.parametrize(
    "changes",
    [{"quality": 0}, {"quality": 101}, {"subsampling": "4:1:1"}, {"most_bytes": 0}, {"window": 4}, {"window": 1},
     {"window": -3}, {"window_ends": "mirror"}],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(STORE, **changes)
    with pytest.raises(CacheError, match="are invalid"):
        FrameStore.from_dict({**STORE.to_dict(), **changes})


def test_packing_keeps_each_frame_at_the_start_of_its_row() -> None:
    rows, lengths = pack([b"abc", b"z"], 4, 3)
    assert (rows.tolist(), lengths) == ([[97, 98, 99, 0], [122, 0, 0, 0], [0, 0, 0, 0]], [3, 1, 0])
    assert np.dtype(rows.dtype) == np.uint8
    with pytest.raises(ValueError, match="0 to 1 bytes"):
        pack([b"", b"a"], 4, 2)


def test_rows_taken_over_keep_their_frames_byte_for_byte(world: Any, split: Any) -> None:
    before = read_back(split, 0), read_back(split, 2)
    with SplitWriter(split) as writer:
        record = split.ledger.finished()[0]
        with writer.shard(0) as shard:
            world.add(shard, split, 1)
            shard.copy([0, 2], record)
    assert (read_back(split, 0), read_back(split, 2)) == before
    assert read_back(split, 1) == world.jpegs_of(split, 1)
    with CacheReader(split) as reader:
        assert damage_of(reader, 0) == []


def test_frames_are_read_from_behind_a_url(world: Any, split: Any) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    place = f"frames-behind-a-url-{split.frames.window}"
    memory.put(str(split.path.parent), f"/{place}", recursive=True)
    far = open_split(f"memory://{place}", "train")
    assert [read_back(far, row) for row in (0, 4)] == [world.jpegs_of(split, row) for row in (0, 4)]
    memory.rm(f"/{place}/{file_of(split, 2).relative_to(split.path.parent)}")
    with pytest.raises(CacheCorrupt, match="missing though its shard is finished"):
        read_back(far, 6)
