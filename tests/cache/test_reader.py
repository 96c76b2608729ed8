"""Reading: the direct reader equals zarr-python, and notices every damaged bit."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read import files, plain, runs
from vidxfer.pipeline.cache.read import reader as reader_module
from vidxfer.pipeline.cache.read.plain import ZarrReader, open_reader
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheCorrupt, CacheError, CacheIncomplete

FAILED = (2, 6)
LARGEST_ERROR = {"int8": 0.05, "float16": 0.002, "int4": 0.9}


@pytest.fixture(scope="module", params=["int8", "float16", "int4", "pca4+int6", "rotate+pq2"])
def filled(request: pytest.FixtureRequest, world: Any, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Eleven videos in shards of four, two of them failed."""
    folder = tmp_path_factory.mktemp("filled")
    split: Split = world.fill(world.make(folder, videos=11, shard_videos=4, codec=request.param), failing=FAILED)
    return split


STORED = [row for row in range(11) if row not in FAILED]
wanted = st.lists(st.tuples(st.sampled_from(STORED), st.integers(0, 1)), min_size=1, max_size=9)
layer_choices = st.none() | st.lists(st.sampled_from([-1, 3, 7]), min_size=1, max_size=4)


@given(clips=wanted, layers=layer_choices, threads=st.integers(1, 4), run_bytes=st.sampled_from([1, 200, 4 << 20]))
@settings(max_examples=60, deadline=None)
def test_the_direct_reader_equals_zarr_python(
    filled: Split, clips: list[tuple[int, int]], layers: list[int] | None, threads: int, run_bytes: int
) -> None:
    rows, views = [row for row, _ in clips], [view for _, view in clips]
    through_zarr = ZarrReader(filled)
    with pytest.MonkeyPatch.context() as patched, CacheReader(filled, threads=threads) as direct:
        patched.setattr(runs, "RUN_BYTES_MOST", run_bytes)
        patched.setattr(runs, "CALL_BYTES_MOST", max(1, run_bytes // 3))
        patched.setattr(runs, "DIRECT_BYTES_MOST", max(1, run_bytes // 2))
        patched.setattr(reader_module, "SHARDS_AT_ONCE", threads)
        found, expected = direct.read(rows, views, layers), through_zarr.read(rows, views, layers)
        assert torch.equal(found.codes, expected.codes)
        assert (found.scale is None) == (expected.scale is None) == (filled.spec.codec == "float16")
        if found.scale is not None and expected.scale is not None:
            assert torch.equal(found.scale, expected.scale)
        np.testing.assert_array_equal(direct.embedding(rows, views), through_zarr.embedding(rows, views))


def test_tokens_come_back_within_the_codec_s_error(world: Any, filled: Split) -> None:
    with CacheReader(filled) as reader:
        part = reader.read([3, 10], [1, 0], [7, -1])
    tokens = Dequantiser.of(filled, layers=[7, -1])(part.codes, part.scale)
    if filled.spec.codec not in LARGEST_ERROR:
        return  # random directions and codewords: what they lose is told in test_codecs.py
    for clip, (row, view) in enumerate([(3, 1), (10, 0)]):
        exact = world.tokens_of(filled, row)[view][[2, 0]]
        assert (tokens[clip] - exact).abs().max() < LARGEST_ERROR[filled.spec.codec]


def test_what_is_known_of_a_row_comes_back(world: Any, filled: Split) -> None:
    reader = CacheReader(filled)
    assert reader.stored_rows().tolist() == STORED
    assert reader.state.tolist() == [2 if row in FAILED else 1 for row in range(11)]
    for row in STORED:
        _, _, embedding, views = world.content_of(filled, row)
        assert reader.views_of(row) == views
        assert reader.view(row, 1) == views[1]
        assert reader.source_of(row) == (90 + row, 40, 60 + row)
        np.testing.assert_array_equal(reader.embedding([row], [1])[0], embedding[1].astype(np.float16))
    assert reader.split.labels.tolist() == [row % 3 - 1 for row in range(11)]


def test_rows_that_are_not_stored_are_named(world: Any, filled: Split, tmp_path: Path) -> None:
    reader = CacheReader(filled)
    with pytest.raises(CacheIncomplete, match=r"not stored: vidéo 2, 動画 \(failed\), vidéo 6, 動画 \(failed\)"):
        reader.read([0, 2, 6], [0, 0, 0])
    with pytest.raises(CacheIncomplete, match="failed"):
        reader.view(2, 0)
    fresh = CacheReader(world.make(tmp_path))
    with pytest.raises(CacheIncomplete, match=r"not extracted.* and 2 more\. `vidxfer extract` stores"):
        fresh.embedding(range(7), [0] * 7)


def test_requests_that_cannot_be_meant_are_refused(filled: Split) -> None:
    reader = CacheReader(filled)
    for rows, views, words in (
        ([11], [0], "rows must lie in"),
        ([0], [2], "views"),
        ([0, 1], [0], "one view per clip"),
    ):
        with pytest.raises(ValueError, match=words):
            reader.read(rows, views)
    with pytest.raises(ValueError, match="views"):
        reader.view(0, -1)
    with pytest.raises(CacheError, match=r"layers \[5\] are not in the cache"):
        reader.read([0], [0], [5])
    with pytest.raises(ValueError, match="the buffer holds"):
        reader.read([0, 1], [0, 0], out=reader.buffer(1))


def test_no_clips_and_no_layers_are_empty_not_an_error(filled: Split) -> None:
    reader, width = CacheReader(filled), filled.spec.form.code_width(6)
    assert reader.read([], []).codes.shape == (0, 3, 2, 5, width)
    assert reader.read([0], [0], []).codes.shape == (1, 0, 2, 5, width)
    assert reader.embedding([], []).shape == (0, 2, 4)


def test_a_disk_that_cannot_read_says_so(filled: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(runs.os, "preadv", broken)
    with pytest.raises(CacheCorrupt, match=r"video vidéo 0, 動画, view 0.*cannot be read \(Input/output error\)"):
        CacheReader(filled).read([0], [0])


def test_short_reads_are_continued(filled: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = CacheReader(filled).read(STORED, [1] * len(STORED))
    preadv = os.preadv

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        return preadv(fd, [buffers[0][:7]], offset) if len(buffers) % 3 else preadv(fd, buffers[:2], offset)

    monkeypatch.setattr(runs.os, "preadv", short)
    found = CacheReader(filled).read(STORED, [1] * len(STORED))
    assert torch.equal(found.codes, expected.codes)


def test_a_buffer_is_reused_and_only_its_first_part_is_handed_out(filled: Split) -> None:
    with CacheReader(filled) as reader:
        buffer = reader.buffer(4, [3])
        first = reader.read([0, 1, 3, 4], [0] * 4, [3], out=buffer)
        kept = first.codes.clone()
        second = reader.read([5, 7], [1, 1], [3], out=buffer)
        assert second.codes.data_ptr() == first.codes.data_ptr() == buffer.codes.data_ptr()
        assert second.codes.shape[0] == 2
        assert torch.equal(buffer.codes[2:], kept[2:])
        assert torch.equal(second.codes, reader.read([5, 7], [1, 1], [3]).codes)


def test_many_threads_may_share_a_reader(filled: Split) -> None:
    with CacheReader(filled, threads=3) as reader, ThreadPoolExecutor(4) as pool:
        requests = [([row, STORED[-1 - i]], [i % 2, 0]) for i, row in enumerate(STORED)] * 5
        found = list(pool.map(lambda r: reader.read(*r).codes, requests))
        for request, codes in zip(requests, found, strict=True):
            assert torch.equal(codes, reader.read(*request).codes)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("most", [1, 3, 256])
def test_few_files_stay_open_and_none_after_closing(filled: Split, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(files, "OPEN_FILES_MOST", most)
    monkeypatch.setattr(reader_module, "SHARDS_AT_ONCE", 1)
    gc.collect()
    before = open_descriptors()
    with CacheReader(filled) as reader, CacheReader(filled) as roomy:
        expected = roomy.read(STORED, [0] * len(STORED)).codes
        roomy.close()
        for _ in range(20):
            assert torch.equal(reader.read(STORED, [0] * len(STORED)).codes, expected)
            reader.embedding(STORED, [1] * len(STORED))
        assert open_descriptors() <= before + most + 1
        reader.close()
        assert open_descriptors() == before
        reader.read([0], [0])
    assert open_descriptors() == before


def test_a_reader_nobody_closed_lets_go_of_its_files(filled: Split) -> None:
    gc.collect()
    before = open_descriptors()
    CacheReader(filled, threads=1).read([0], [0])
    gc.collect()
    assert open_descriptors() == before


@given(
    clips=wanted,
    layers=layer_choices,
    data=st.data(),
    threads=st.integers(1, 3),
    how=st.sampled_from([{}, {"verify": False}, {"direct": True}, {"direct": True, "verify": False}]),
    run_bytes=st.sampled_from([1, 200, 4 << 20]),
)
@settings(max_examples=80, deadline=None)
def test_any_frames_of_a_clip_are_those_of_the_whole_clip(
    filled: Split,
    clips: list[tuple[int, int]],
    layers: list[int] | None,
    data: st.DataObject,
    threads: int,
    how: dict[str, bool],
    run_bytes: int,
) -> None:
    rows, views = [row for row, _ in clips], [view for _, view in clips]
    each = data.draw(st.integers(1, 3))
    frames = data.draw(st.none() | st.lists(
        st.lists(st.integers(0, 1), min_size=each, max_size=each), min_size=len(clips), max_size=len(clips)
    ))  # fmt: skip
    whole = ZarrReader(filled).read(rows, views, layers)
    for reader in (CacheReader(filled, threads=threads, **how), ZarrReader(filled, threads=threads)):
        with pytest.MonkeyPatch.context() as patched, reader:
            patched.setattr(runs, "RUN_BYTES_MOST", run_bytes)
            patched.setattr(runs, "CALL_BYTES_MOST", max(1, run_bytes // 3))
            patched.setattr(runs, "DIRECT_BYTES_MOST", max(1, run_bytes // 2))
            found = reader.read(rows, views, layers, frames=frames)
            for clip in range(len(clips)):
                at = slice(None) if frames is None else frames[clip]
                assert torch.equal(found.codes[clip], whole.codes[clip][:, at])
                if found.scale is not None and whole.scale is not None:
                    assert torch.equal(found.scale[clip], whole.scale[clip][:, at])


def test_what_memory_cannot_hold_is_read_past_the_file_cache(filled: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = filled.layout.owned["tokens"].file_bytes(4) * 3
    for memory, layers, direct in ((tokens, None, False), (tokens - 1, None, True), (tokens - 1, [3, 7], False)):
        monkeypatch.setattr(plain, "memory_bytes", lambda memory=memory: memory)
        with open_reader(filled, layers=layers) as reader:
            assert ("past the file cache" in reader.how) == direct
            assert ("4 threads" in reader.how) == direct
            assert torch.equal(reader.read([5], [1]).codes, ZarrReader(filled).read([5], [1]).codes)
    assert plain.memory_bytes() > 0


@pytest.mark.parametrize("refused_at", ["fcntl", "preadv"])
def test_a_file_system_without_direct_reads_is_read_as_usual(
    filled: Split, monkeypatch: pytest.MonkeyPatch, refused_at: str
) -> None:
    module = fcntl if refused_at == "fcntl" else os
    real, ask = getattr(module, refused_at), fcntl.fcntl

    def refuses(fd: int, *more: Any) -> Any:
        flags = more[-1] if more[0] == fcntl.F_SETFL else ask(fd, fcntl.F_GETFL)
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, *more)

    expected = CacheReader(filled).read(STORED, [1] * len(STORED)).codes
    before = open_descriptors()
    with CacheReader(filled, direct=True) as reader:
        monkeypatch.setattr(module, refused_at, refuses)
        assert torch.equal(reader.read(STORED, [1] * len(STORED)).codes, expected)
        reader.close()
        assert open_descriptors() == before


def test_frames_that_cannot_be_meant_are_refused(filled: Split) -> None:
    with CacheReader(filled) as reader:
        for frames, words in (([[0, 2]], "must lie in 0..1"), ([[0], [1]], "1 clips"), ([], "0 lists, 1 clips")):
            with pytest.raises(ValueError, match=words):
                reader.read([0], [0], frames=frames)
        with pytest.raises(ValueError, match="equally long"):
            reader.read([0, 1], [0, 0], frames=[[0], [0, 1]])
        with pytest.raises(ValueError, match="the buffer holds"):
            reader.read([0], [0], frames=[[1]], out=reader.buffer(1))
        assert reader.read([0], [0], frames=[[1]], out=reader.buffer(1, frames=1)).codes.shape[2] == 1


def read_everything(split: Split, rows: list[int]) -> None:
    with CacheReader(split) as reader:
        assert reader.stored_rows().tolist() == STORED
        for view in (0, 1):
            reader.read(rows, [view] * len(rows))
            reader.embedding(rows, [view] * len(rows))
        for row in rows:
            reader.views_of(row)
            reader.source_of(row)


@pytest.mark.parametrize("how", [{"direct": True}, {}], ids=["direct", "cached"])
def test_a_flipped_bit_is_found_when_only_some_frames_are_wanted(filled: Split, how: dict[str, bool]) -> None:
    array = filled.layout.owned["tokens"]
    path = filled.path / array.key(0)
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[array.offset(array.slot(1, 0, 2)) + array.chunk_bytes - 1] ^= 1  # row 1, the last frame
    try:
        path.write_bytes(damaged)
        with CacheReader(filled, **how) as reader:
            with pytest.raises(CacheCorrupt, match=r"video vidéo 1, 動画, view 0, layer 7: .*crc32c"):
                reader.read([0, 1], [0, 0], frames=[[0], [0]])
            with pytest.raises(CacheCorrupt, match=r"layer 7: .*crc32c"):
                reader.read([1], [0], [3, 7])
    finally:
        path.write_bytes(content)


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_flipped_bit_of_a_stored_video_is_found(filled: Split, data: st.DataObject) -> None:
    array = data.draw(st.sampled_from(list(filled.layout.owned.values())))
    shard = data.draw(st.integers(0, filled.shard_count - 1))
    path = filled.path / array.key(shard)
    size = path.stat().st_size
    at = data.draw(st.integers(0, size - 1))
    holes = [filled.layout.rows(shard).index(row) for row in FAILED if row in filled.layout.rows(shard)]
    row_bytes = array.offset(array.slots // array.file_shape[0]) if array.chunk_shape else size
    if array.chunk_shape and at < size - array.index_bytes and at // row_bytes in holes:
        return  # nothing is stored there
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(damaged)
        with pytest.raises(CacheCorrupt, match="crc32c"):
            read_everything(filled, STORED)
    finally:
        path.write_bytes(content)


def test_a_damaged_chunk_is_named_by_file_video_view_and_layer(filled: Split) -> None:
    array = filled.layout.owned["tokens"]
    path = filled.path / array.key(1)
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[array.offset(array.slot(1, 1, 2)) + 3] ^= 16  # row 5
    try:
        path.write_bytes(damaged)
        with CacheReader(filled) as reader:
            with pytest.raises(CacheCorrupt, match=r"tokens/c/1/.*: video vidéo 5, 動画, view 1, layer 7: .*crc32c"):
                reader.read([5], [1])
            reader.read([5, 5], [1, 0], [-1, 3])  # the other layers are whole
        with CacheReader(filled, verify=False) as reader:
            reader.read([5], [1])
    finally:
        path.write_bytes(content)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_file_cut_off_anywhere_is_found(filled: Split, data: st.DataObject) -> None:
    array = data.draw(st.sampled_from(list(filled.layout.owned.values())))
    path = filled.path / array.key(0)
    content = path.read_bytes()
    try:
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(CacheCorrupt):
            read_everything(filled, STORED)
        with SplitWriter(filled) as writer:
            assert writer.pending() == [0]
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["tokens", "embedding", "crop", "state"])
def test_a_deleted_file_is_found_and_says_how_to_make_it_again(filled: Split, name: str) -> None:
    path = filled.path / filled.layout.owned[name].key(2)
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        with pytest.raises(CacheCorrupt, match=r"file is missing though its shard is finished.*`vidxfer extract`"):
            read_everything(filled, STORED)
    finally:
        aside.rename(path)
