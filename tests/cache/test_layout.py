"""Where bytes lie: the formula equals counting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.cache.layout import SplitLayout
from vidxfer.pipeline.cache.views import as_stored, stored_view, view_arrays
from vidxfer.pipeline.shapes import View


@given(st.integers(1, 200), st.integers(1, 70), st.integers(1, 3), st.sampled_from(["int8", "float16"]))
def test_slots_are_counted_in_c_order(world: Any, videos: int, shard_videos: int, views: int, codec: str) -> None:
    spec = replace(world.SPEC, views=views, codec=codec)
    layout = SplitLayout(spec=spec, videos=videos, classes=2, shard_videos=shard_videos)
    tokens = layout.owned["tokens"]
    counted = 0
    for row in range(shard_videos):
        for view in range(views):
            for layer in range(3):
                assert tokens.slot(row, view, layer) == counted
                assert tokens.offset(counted) == counted * (2 * 5 * 6 * (1 if codec == "int8" else 2) + 4)
                counted += 1
    assert tokens.slots == counted
    assert tokens.index_bytes == counted * 16 + 4


@given(st.integers(1, 300), st.integers(1, 70))
def test_every_row_is_in_exactly_one_shard(world: Any, videos: int, shard_videos: int) -> None:
    layout = SplitLayout(spec=world.SPEC, videos=videos, classes=2, shard_videos=shard_videos)
    rows = [row for shard in range(layout.shard_count) for row in layout.rows(shard)]
    assert rows == list(range(videos))
    assert layout.total_bytes == sum(layout.shard_bytes(shard) for shard in range(layout.shard_count))


def test_planned_bytes_are_the_bytes_of_the_files(world: Any, tmp_path: Path) -> None:
    for codec in ("int8", "float16", "int6", "rotate+int4", "pca5+pq2"):
        split = world.fill(world.make(tmp_path / codec, codec=codec))
        written = [p for name in split.layout.owned for p in (split.path / name / "c").rglob("*") if p.is_file()]
        assert sum(p.stat().st_size for p in written) == split.layout.total_bytes
        assert split.layout.total_bytes == sum(record.bytes for record in split.ledger.finished().values())


side = st.floats(0.5, 5000, width=64)


@given(
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6), st.tuples(side, side, side, side), st.booleans(),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=50)
def test_a_view_as_stored_comes_back_unchanged(
    indices: list[int], crop: tuple[float, float, float, float], flip: bool, grey: bool
) -> None:
    shown = as_stored(View(indices=tuple(indices), crop=crop, resize_first=True, flip=flip, grey=grey))
    assert stored_view(view_arrays([shown]), 0) == shown
    assert shown.indices == tuple(indices)
    assert all(abs(a - b) <= 1e-6 * b for a, b in zip(shown.crop, crop, strict=True))


@given(st.lists(st.integers(1, 90), min_size=1, max_size=4), st.integers(1, 40))
def test_with_extents_every_row_of_a_video_is_in_exactly_one_shard(
    world: Any, counts: list[int], shard_videos: int
) -> None:
    extents: list[tuple[int, int]] = []
    for count in counts:
        first = -(-extents[-1][1] // shard_videos) * shard_videos if extents else 0
        extents.append((first, first + count))
    end = extents[-1][1]
    layout = SplitLayout(spec=world.SPEC, videos=end, classes=2, shard_videos=shard_videos, extents=tuple(extents))
    rows = [row for shard in range(layout.shard_count) for row in layout.rows(shard)]
    assert rows == [row for first, last in extents for row in range(first, last)]
    assert all(layout.rows(shard)[0] == shard * shard_videos for shard in range(layout.shard_count))
    assert layout.total_bytes == sum(layout.shard_bytes(shard) for shard in range(layout.shard_count))


def test_extents_that_share_a_shard_or_leave_rows_over_are_refused(world: Any) -> None:
    for extents in (((0, 5), (5, 9)), ((0, 5), (8, 10)), ((1, 9),), ((0, 5), (6, 6)), ((0, 8),)):
        with pytest.raises(ValueError, match="extents"):
            SplitLayout(spec=world.SPEC, videos=9, classes=2, shard_videos=3, extents=extents)
