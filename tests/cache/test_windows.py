"""Which frames a cache keeps beside the dense ones: arithmetic of rows, and settings that leave older caches alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.cache.frames import FrameStore, expect_same_frames
from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.read.check import damage_of
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.shard import read_plain
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheCorrupt, CacheMismatch
from vidxfer.pipeline.video.sampling import window_indices

STORE = FrameStore(quality=90, subsampling="4:4:4", most_bytes=700)
WINDOWS = replace(STORE, window=5)


def test_the_rows_of_a_view_by_hand() -> None:
    """Dense 1 4 6 9 of ten frames; CLIP sees 1 and 6. Around them: 0 0 1 2 3 and 4 5 6 7 8."""
    assert WINDOWS.kept((1, 4, 6, 9), 2, 10) == (1, 4, 6, 9, 0, 2, 3, 5, 7, 8)
    assert replace(WINDOWS, window_ends="wrap").kept((1, 4, 6, 8), 2, 10) == (1, 4, 6, 8, 0, 2, 3, 5, 7, 9)
    assert replace(WINDOWS, window=3).kept((0, 0, 0, 0), 2, 1) == (0, 0, 0, 0)
    assert STORE.kept((1, 4, 6, 9), 2, 10) == (1, 4, 6, 9)
    assert (STORE.most_kept(16, 2), WINDOWS.most_kept(16, 2), WINDOWS.most_kept(8, 1)) == (16, 48, 40)


@given(
    st.integers(1, 60), st.sampled_from((1, 2, 4)), st.integers(1, 4), st.sampled_from((3, 5, 7)),
    st.sampled_from(("clamp", "wrap")), st.data(),
)  # fmt: skip
def test_every_window_that_a_store_says_it_holds_is_among_its_rows(
    frame_count: int, alpha: int, sparse: int, window: int, ends: Any, data: Any
) -> None:
    numbers = st.lists(st.integers(0, frame_count - 1), min_size=alpha * sparse, max_size=alpha * sparse)
    indices = tuple(sorted(data.draw(numbers)))
    store = replace(STORE, window=window, window_ends=ends)
    kept = store.kept(indices, alpha, frame_count)
    others = kept[len(indices) :]
    assert kept[: len(indices)] == indices, "a dense frame stands where it stood without windows"
    assert list(others) == sorted(set(others) - set(indices))
    assert len(kept) <= store.most_kept(len(indices), alpha)
    for asked in (1, 3, 5, 7):
        for asked_ends in ("clamp", "wrap"):
            around = set(window_indices(indices[::alpha], asked, frame_count, asked_ends))  # type: ignore[arg-type]
            if store.holds_windows(asked, asked_ends):  # type: ignore[arg-type]
                assert around <= set(kept)
            else:
                assert asked > window or (asked_ends, ends) == ("wrap", "clamp")


def test_settings_of_caches_without_windows_are_those_of_before() -> None:
    old = {"format": "jpeg", "quality": 90, "subsampling": "4:4:4", "most_bytes": 700}
    assert STORE.to_dict() == old
    assert FrameStore.from_dict(old) == STORE
    assert WINDOWS.to_dict() == {**old, "window": 5}
    wrapped = replace(WINDOWS, window_ends="wrap")
    for store in (WINDOWS, wrapped):
        assert FrameStore.from_dict(store.to_dict()) == store
    assert [str(store) for store in (STORE, WINDOWS, wrapped)] == [
        "JPEG, quality 90", "JPEG, quality 90, windows of 5", "JPEG, quality 90, windows of 5 wrapped"
    ]  # fmt: skip
    with pytest.raises(CacheMismatch, match=r"frames\.window: .*0.*5"):
        expect_same_frames("here", STORE, WINDOWS)
    with pytest.raises(CacheMismatch, match=r"frames\.window_ends: .*'wrap'.*'clamp'"):
        expect_same_frames("here", wrapped, WINDOWS)


def test_a_view_with_another_number_of_frames_than_its_windows_have_is_refused(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path, frames=WINDOWS)
    files = world.jpegs_of(split, 0)
    assert len(files[0]) > 4
    writer = SplitWriter(split)
    with writer, pytest.raises(ValueError, match=r"expected 2 views of [\d, ]+ JPEGs, not"), writer.shard(0) as shard:
        world.add_content(shard, 0, world.content_of(split, 0), [files[0][:-1], files[1]])


def test_lengths_that_do_not_fit_the_windows_are_damage(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A length behind the last kept frame, or none where one is kept: no checksum differs, the numbers cannot be."""
    split = world.fill(world.make(tmp_path, videos=40, shard_videos=40, frames=WINDOWS))
    rows, array = Rows(split), split.layout.owned["frame_bytes"]
    counts = {(row, view): len(FrameReader(rows).kept(row, view)) for row in range(40) for view in range(2)}
    (row, view), count = next(one for one in counts.items() if one[1] < 12)  # windows that overlap
    lengths = read_plain(split.path / array.key(0), array)[row, view]
    assert lengths[:count].all()
    assert lengths[count:].tolist() == [0] * (12 - count)
    for place, length in ((count, 7), (count - 1, 0)):
        rows, other = Rows(split), lengths.copy()
        other[place] = length
        monkeypatch.setattr(rows, "frame_lengths", lambda *_, other=other: other)
        with pytest.raises(CacheCorrupt, match=f"frames of 0 to .* bytes cannot be, {count} of them"):
            FrameReader(rows).files(row, view)
    with CacheReader(split) as reader:
        assert damage_of(reader, 0) == []
