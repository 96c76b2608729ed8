"""Adding views: finished shards are untouched, and whoever looks at any moment sees all of the new views or none."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import LocalStore
from zarr.storage import ObjectStore

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.layout import FAILED, PENDING, STORED
from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.read.check import damage_of
from vidxfer.pipeline.cache.read.plain import ZarrReader, open_reader
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.cache.remote import RemotePath
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.grow import Addition, grow
from vidxfer.pipeline.cache.write.more_views import begin_views, begun_views, join_views
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheCorrupt, CacheError, CacheIncomplete

from ..hostile import Killed, killed_at

FRAMES = FrameStore(quality=90, subsampling="4:4:4", most_bytes=40)


def fill_part(world: Any, part: Split, whole: Split, *, failing: tuple[int, ...] = (), shift: int = 0) -> None:
    """Write what is pending of a part: of every row the views that the whole has under the same numbers."""
    numbers = part.spec.view_numbers
    kept = slice(numbers[0], numbers[-1] + 1)
    with SplitWriter(part) as writer:
        for k in writer.pending():
            with writer.shard(k) as shard:
                for row in shard.rows:
                    if row in failing:
                        shard.fail(row, world.bad(f"view {numbers[0]}"))
                        continue
                    codes, scale, embedding, views = world.content_of(whole, row)
                    jpegs = world.jpegs_of(whole, row)
                    shard.add(
                        row, codes[kept], None if scale is None else scale[kept], embedding[kept], views[kept],
                        frame_count=90 + row + shift, source_px=(40, 60 + row),
                        frames=None if jpegs is None else jpegs[kept],
                    )  # fmt: skip


def extend(world: Any, folder: Path, whole: Split, views: int, **filling: Any) -> Split:
    """The split in a folder, brought to `views` views; goes on with what was begun."""
    split = open_split(folder, "train")
    with SplitWriter(split.parts[0]) as first:
        part = begun_views(split) or begin_views(split, views, {"vidxfer": "test"})
        fill_part(world, part, whole, **filling)
        with SplitWriter(part) as added:
            join_views(first, added)
    return open_split(folder, "train")


@pytest.fixture(scope="module", params=["int8", "float16"])
def pair(request: Any, world: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """A split of 5 views made at once, and one extended from 2 to 3 to 5; row 4 failed in both."""
    folder = tmp_path_factory.mktemp(request.param)
    form = {"codec": request.param, "frames": FRAMES}
    once = world.fill(world.make(folder / "once", views=5, **form), failing=(4,))
    split = world.make(folder / "grown", views=2, **form)
    fill_part(world, split, once, failing=(4,))
    extend(world, folder / "grown", once, 3)
    return once, extend(world, folder / "grown", once, 5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clips=st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 5, 6]), st.integers(0, 4)), min_size=1, max_size=12),
    layers=st.lists(st.sampled_from([-1, 3, 7]), min_size=1, unique=True),
    frames=st.none() | st.permutations([0, 1]),
)
def test_any_views_are_read_as_from_a_split_made_at_once(
    pair: tuple[Split, Split], clips: list[tuple[int, int]], layers: list[int], frames: list[int] | None
) -> None:
    once, grown = pair
    rows, views = [row for row, _ in clips], [view for _, view in clips]
    kept = None if frames is None else [frames] * len(rows)
    with CacheReader(once) as theirs, CacheReader(grown) as ours, ZarrReader(grown) as plain:
        wanted = theirs.read(rows, views, layers, frames=kept)
        for reader in (ours, plain):
            found = reader.read(rows, views, layers, frames=kept)
            assert torch.equal(found.codes, wanted.codes)
            assert (found.scale is wanted.scale is None) or torch.equal(found.scale, wanted.scale)  # type: ignore[arg-type]
            assert np.array_equal(reader.embedding(rows, views), theirs.embedding(rows, views))
            assert [reader.view(row, view) for row, view in clips] == [theirs.view(row, view) for row, view in clips]
        for row, view in clips[:3]:
            ours_files, theirs_files = FrameReader(plain).files(row, view), FrameReader(theirs).files(row, view)
            assert [bytes(one) for one in ours_files] == [bytes(one) for one in theirs_files]


def test_an_extended_split_says_what_one_made_at_once_says(pair: tuple[Split, Split]) -> None:
    once, grown = pair
    assert (grown.more_views, [part.spec.views for part in grown.parts]) == ((2, 3), [2, 1, 2])
    assert (grown.spec, grown.spec.fingerprint) == (once.spec, once.spec.fingerprint)
    assert Rows(grown).state.tolist() == Rows(once).state.tolist()
    assert {one.id: one.reason for one in grown.failures().values()} == {once.video_ids[4]: "decode_failed"}
    ours, theirs = (summary(split.path.parent)["train"] for split in (grown, once))
    names = ("shape", "stored", "failed", "pending", "reasons", "shards_finished", "tokens_fingerprint")
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}
    assert ours["views_in_parts"] == ["0-1", "2", "3-4"]
    for part in grown.parts:
        with CacheReader(part) as reader:
            assert [damage_of(reader, shard) for shard in range(part.shard_count)] == [[]] * part.shard_count
    with pytest.raises(ValueError, match="3 parts: each is written by itself"):
        SplitWriter(grown)


def test_plain_zarr_reads_added_views(pair: tuple[Split, Split]) -> None:
    once, grown = pair
    group = zarr.open_group(grown.path.parent / "train.views" / "3", mode="r")
    assert group["tokens"].shape[:2] == (7, 2)
    with CacheReader(once) as reader:
        assert np.array_equal(group["tokens"][5, 1], reader.read([5], [4]).codes[0].numpy())
    assert group["video_id"][:].tolist() == list(once.video_ids)


def test_added_views_are_read_from_behind_a_url(pair: tuple[Split, Split]) -> None:
    once, grown = pair
    there = RemotePath(ObjectStore(LocalStore(grown.path.parent), read_only=True), "store://cache")
    with CacheReader(once) as wanted, open_reader(open_split(there, "train")) as reader:
        assert isinstance(reader, ZarrReader)
        assert torch.equal(reader.read([6, 0, 1], [4, 0, 2]).codes, wanted.read([6, 0, 1], [4, 0, 2]).codes)
        assert reader.views_of(3) == wanted.views_of(3)
    assert summary(there)["train"]["views_in_parts"] == ["0-1", "2", "3-4"]


def test_finished_files_stay_and_new_views_count_when_they_are_whole(world: Any, tmp_path: Path) -> None:
    once = world.make(tmp_path / "once", views=4)
    split = world.make(tmp_path / "grown", views=2)
    fill_part(world, split, once)
    before = world.files_of(split.path)
    with SplitWriter(split) as first:
        part = begin_views(split, 4, {})
        with SplitWriter(part) as added, pytest.raises(CacheIncomplete, match="3 shards are pending"):
            join_views(first, added)
        assert open_split(tmp_path / "grown", "train").spec.views == 2
        assert summary(tmp_path / "grown")["train"]["views_being_added"]["views"] == "2-3"
    with CacheReader(split) as reader:  # was open before, and goes on
        grown = extend(world, tmp_path / "grown", once, 4)
        assert reader.read([6], [1]).codes.shape[0] == 1
    assert grown.spec.views == 4
    after = world.files_of(split.path)
    assert {name for name in after if after[name] != before.get(name)} == {"zarr.json"}


def test_a_row_that_failed_in_one_part_is_not_stored(world: Any, tmp_path: Path) -> None:
    once = world.make(tmp_path / "once", views=3)
    fill_part(world, world.make(tmp_path / "grown", views=2), once, failing=(1,))
    grown = extend(world, tmp_path / "grown", once, 3, failing=(1, 5))
    with CacheReader(grown) as reader:
        assert np.flatnonzero(reader.state == FAILED).tolist() == [1, 5]
        with pytest.raises(CacheIncomplete, match=r"vidéo 5, 動画 \(failed\)"):
            reader.read([5], [0])
    details = {name: one.detail for name, one in grown.failures().items()}
    assert details == {grown.video_ids[1]: "view 0", grown.video_ids[5]: "view 2"}
    assert [record.stored for record in grown.finished().values()] == [2, 2, 1]
    with SplitWriter(grown.parts[1]) as writer:
        writer.drop(2, "damaged")
    with CacheReader(open_split(tmp_path / "grown", "train")) as reader:
        assert reader.state.tolist() == [STORED, FAILED, STORED, STORED, STORED, FAILED, PENDING]


def test_views_of_other_files_are_not_joined(world: Any, tmp_path: Path) -> None:
    once = world.make(tmp_path / "once", views=3)
    fill_part(world, world.make(tmp_path / "grown", views=2), once)
    with pytest.raises(CacheError, match=r"vidéo 0, 動画.* and 2 more: not the files that the first views"):
        extend(world, tmp_path / "grown", once, 3, shift=1)
    assert extend(world, tmp_path / "grown", once, 3).spec.views == 3


def test_a_missing_or_a_foreign_part_is_named(world: Any, tmp_path: Path) -> None:
    once = world.make(tmp_path / "once", views=3)
    fill_part(world, world.make(tmp_path / "grown", views=2), once)
    extend(world, tmp_path / "grown", once, 3)
    part = tmp_path / "grown" / "train.views" / "2"
    shutil.rmtree(part)
    with pytest.raises(CacheCorrupt, match=r"train\.views/2 is missing: .*has its views from 2 on there"):
        open_split(tmp_path / "grown", "train")
    world.make(tmp_path / "strange", views=1, first_view=2, videos=5)
    shutil.copytree(tmp_path / "strange" / "train", part)
    with pytest.raises(CacheCorrupt, match="does not hold further views of"):
        open_split(tmp_path / "grown", "train")


def test_older_attributes_mean_no_added_views(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path)
    attributes = json.loads((split.path / "zarr.json").read_text())["attributes"]["vidxfer"]
    assert "more_views" not in attributes
    assert "first_view" not in attributes["spec"]
    with pytest.raises(ValueError, match="first_view=1: test views"):
        world.make(tmp_path / "val", view_kind="test", split="val", first_view=1)


def test_views_added_by_a_process_that_is_killed_at_any_step_are_all_there_or_none(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = world.fill(world.make(tmp_path / "once", views=4, videos=3, shard_videos=2))
    fill_part(world, world.make(tmp_path / "calm", views=2, videos=3, shard_videos=2), once)
    seen: list[int] = []
    while True:
        folder = tmp_path / f"step {len(seen)}"
        shutil.copytree(tmp_path / "calm", folder)
        with killed_at(len(seen), monkeypatch):
            try:
                extend(world, folder, once, 4)
            except Killed:
                pass
            else:
                break
        seen.append(open_split(folder, "train").spec.views)
        if len(seen) % 6 == 0 and seen[-1] == 2:
            extend(world, folder, once, 4)
            with CacheReader(open_split(folder, "train")) as ours, CacheReader(once) as theirs:
                rows, views = [0, 1, 2], [3, 0, 2]
                assert torch.equal(ours.read(rows, views).codes, theirs.read(rows, views).codes)
    assert len(seen) > 20
    assert set(seen) == {2}, "joined by the last rename"


def test_videos_added_to_a_split_of_several_parts_are_in_all_or_none_whatever_is_killed(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = world.make(tmp_path / "once", views=4, videos=3, shard_videos=2)
    fill_part(world, world.make(tmp_path / "calm", views=2, videos=3, shard_videos=2), once)
    split = extend(world, tmp_path / "calm", once, 4)

    def enlarge(folder: Path, count: int) -> None:
        here = open_split(folder, "train")
        addition = Addition(
            video_ids=tuple(f"later {i} of {count}" for i in range(count)), labels=[2] * count,
            class_names=(*split.class_names, f"new of {count}"), text=np.full((1, split.spec.embed), 7.0),
            flip_pairs=split.flip_pairs, factors={}, dataset="csv", dataset_fingerprint=f"of {count}", data={},
        )  # fmt: skip
        with ExitStack() as stack:
            for writer in reversed([stack.enter_context(SplitWriter(part)) for part in here.parts]):
                grow(writer, addition)

    counts: list[int] = []
    while True:
        folder = tmp_path / f"step {len(counts)}"
        shutil.copytree(tmp_path / "calm", folder)
        with killed_at(len(counts), monkeypatch):
            try:
                enlarge(folder, 4)
            except Killed:
                pass
            else:
                break
        found = open_split(folder, "train")
        counts.append(found.video_count)
        assert (Rows(found).state == STORED).sum() == 3
        if counts[-1] == 3 and len(counts) % 8 == 0:  # another, smaller addition comes instead
            enlarge(folder, 1)
            instead = open_split(folder, "train")
            assert [part.video_ids for part in instead.parts] == [instead.video_ids] * 2
            assert instead.video_ids[-1] == "later 0 of 1"
    assert len(counts) > 30
    assert counts == sorted(counts)
    assert set(counts) == {3}, "the first part is told last"
    assert open_split(folder, "train").video_count == 7
