"""Adding videos: finished shards are untouched, and whoever looks at any moment sees the old split or the new one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from vidxfer.pipeline.cache.layout import GAP, PENDING, STORED
from vidxfer.pipeline.cache.read.check import damage_of
from vidxfer.pipeline.cache.read.plain import ZarrReader
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.grow import Addition, grow, grown
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheError, CacheIncomplete, CacheMismatch

from ..hostile import Killed, killed_at


def addition(split: Split, count: int, name: str = "später", classes: int = 0) -> Addition:
    names = (*split.class_names, *[f"new class {i} of {name}" for i in range(classes)])
    return Addition(
        video_ids=tuple(f"{name} {i}" for i in range(count)),
        labels=[len(names) - 1] * count,
        class_names=names,
        text=np.full((classes, split.spec.embed), 7.0),
        flip_pairs=split.flip_pairs,
        factors=split.factors,
        dataset="csv",
        dataset_fingerprint=f"of {name}",
        data={"kind": "csv", "root": f"there/{name}"},
    )


def enlarge(split: Split, *more: Any, **named: Any) -> Split:
    with SplitWriter(split) as writer:
        return grow(writer, addition(split, *more, **named))


def chunk_files(split: Split) -> dict[str, tuple[int, bytes]]:
    files = [path for name in split.layout.owned for path in (split.path / name / "c").rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize(("videos", "shard_videos", "later"), [(7, 3, 4), (6, 3, 5), (2, 3, 1), (7, 3, 17)])
def test_videos_come_behind_a_gap_and_finished_shards_are_untouched(
    world: Any, tmp_path: Path, videos: int, shard_videos: int, later: int
) -> None:
    split = world.fill(world.make(tmp_path, videos=videos, shard_videos=shard_videos), failing=(1,))
    before, old_ledger = chunk_files(split), split.ledger.path.read_bytes()
    enlarge(split, later, classes=1)
    found = open_split(tmp_path, "train")
    first = -(-videos // split.shard_videos) * split.shard_videos
    assert found.video_rows.tolist() == [*range(videos), *range(first, first + later)]
    assert found.video_ids[videos:first] == ("",) * (first - videos)
    assert found.labels[:videos].tolist() == split.labels.tolist()
    assert found.labels[first:].tolist() == [2] * later
    assert (found.class_names[:2], found.text[2].tolist()) == (split.class_names, [7.0] * 4)
    assert (found.spec.tokens_fingerprint, found.cache_id) == (split.spec.tokens_fingerprint, split.cache_id)
    assert found.spec.fingerprint != split.spec.fingerprint
    assert chunk_files(found) == before
    assert found.ledger.path.read_bytes() == old_ledger
    with CacheReader(found) as reader:
        assert set(reader.state[videos:first]) <= {GAP}
        assert set(reader.state[first:]) == {PENDING}
        with pytest.raises(CacheIncomplete, match="not extracted"):
            reader.read([first], [0])

    world.fill(found)
    assert {name: chunk_files(found)[name] for name in before} == before
    with CacheReader(found) as reader:
        assert reader.stored_rows().tolist() == [row for row in found.video_rows.tolist() if row != 1]
        for row in reader.stored_rows().tolist():
            codes, scale, _, views = world.content_of(found, row)
            read = reader.read([row, row], [0, 1])
            assert torch.equal(read.codes, codes)
            assert read.scale is not None
            assert torch.equal(read.scale, scale)
            assert reader.views_of(row) == views
        assert [damage_of(reader, shard) for shard in range(found.shard_count)] == [[]] * found.shard_count
        last = found.video_rows.tolist()[-1]
        assert torch.equal(ZarrReader(found).read([last], [1]).codes, reader.read([last], [1]).codes)
    counted = summary(tmp_path)["train"]
    assert (counted["videos"], counted["stored"], counted["pending"]) == (videos + later, videos + later - 1, 0)


@pytest.mark.parametrize("codec", ["int8", "float16"])
def test_a_cache_of_0_1_0_grows_and_what_it_says_of_its_tokens_stays(world: Any, tmp_path: Path, codec: str) -> None:
    """A field that 0.1.0 did not know is left out at the value it had then: else no old cache could be added to."""
    shutil.copytree(Path(__file__).parent / "format1" / codec, tmp_path / "cache")
    old = open_split(tmp_path / "cache", "train")
    stored = json.loads((old.path / "zarr.json").read_text())["attributes"]["vidxfer"]["spec"]
    assert old.spec.to_dict() == stored
    flat = {**stored, **{f"sampling.{name}": value for name, value in stored["sampling"].items()}}
    named = {name: value for part in old.spec.passport.values() for name, value in part.items()}
    assert named == {name: value for name, value in flat.items() if name != "sampling"}
    before = chunk_files(old)
    enlarge(old, 2)
    grown = open_split(tmp_path / "cache", "train")
    videos = {"dataset": "toy+csv", "dataset_fingerprint": grown.spec.dataset_fingerprint}
    assert grown.spec.to_dict() == {**stored, **videos}
    assert grown.spec.tokens_fingerprint == old.spec.tokens_fingerprint
    assert chunk_files(grown) == before
    with CacheReader(grown) as reader:
        assert reader.stored_rows().tolist() == [0, 2]
        assert torch.equal(reader.read([2], [1]).codes, world.content_of(old, 2)[0][1:2])


def test_plain_zarr_reads_a_grown_split(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path))
    world.fill(enlarge(split, 5, classes=2))
    group = zarr.open_group(tmp_path / "train", mode="r")
    assert group["tokens"].shape[0] == group["video_id"].shape[0] == group["label"].shape[0] == 14
    assert group["state"][:].tolist() == [1] * 7 + [0, 0] + [1] * 5
    assert group["video_id"][:].tolist()[6:10] == ["vidéo 6, 動画", "", "", "später 0"]
    assert group["label"][:].tolist()[7:] == [-1, -1, 3, 3, 3, 3, 3]
    assert group["text"].shape == (4, 4)


def test_a_split_grows_again_and_again(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path, videos=4, shard_videos=3))
    for turn in range(3):
        split = world.fill(enlarge(split, turn + 1, name=f"turn {turn}", classes=turn % 2))
        found = open_split(tmp_path, "train")
        assert found.extents == split.extents
        assert found.video_ids == split.video_ids
        assert np.array_equal(found.text, split.text)
    assert (len(split.extents), split.video_count) == (4, 4 + 6)
    with CacheReader(open_split(tmp_path, "train")) as reader:
        assert (reader.state[split.video_rows] == STORED).all()


def test_an_addition_killed_at_any_step_leaves_the_old_split_or_the_new_one(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = world.fill(world.make(tmp_path / "calm", videos=3, shard_videos=2))
    new = grown(split, addition(split, 4, classes=1))
    seen, step = [], 0
    while True:
        folder = tmp_path / f"step {step}"
        shutil.copytree(tmp_path / "calm", folder)
        here = open_split(folder, "train")
        with killed_at(step, monkeypatch) as done:
            try:
                enlarge(here, 4, classes=1)
            except Killed:
                assert done == [step]
            else:
                break
        found = open_split(folder, "train")
        assert found.video_ids in (split.video_ids, new.video_ids)
        seen.append(found.video_ids == new.video_ids)
        with CacheReader(found) as reader:
            assert (reader.state == STORED).sum() == split.video_count
        if (
            not seen[-1] and step % 4 == 0
        ):  # another, smaller addition is what comes instead; then the one that was meant
            world.fill(enlarge(found, 1, name="instead"))
            with CacheReader(open_split(folder, "train")) as reader:
                assert (reader.state == STORED).sum() == split.video_count + 1
        step += 1
    assert step > 10
    assert seen == sorted(seen), "old until one step, new from then on"
    assert open_split(folder, "train").video_ids == new.video_ids


def test_a_reader_that_was_open_before_goes_on(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path))
    with CacheReader(split) as reader:
        before = reader.read([6], [0]).codes.clone()
        world.fill(enlarge(split, 5))
        assert torch.equal(reader.read([6], [0]).codes, before)
        assert torch.equal(CacheReader(split).read([6], [0]).codes, before)


def test_what_cannot_be_added_is_refused_and_nothing_is_written(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path))
    files = world.files_of(split.path)
    with SplitWriter(split) as writer:
        wrong = addition(split, 2)
        for changes, kind, words in (
            ({"video_ids": (split.video_ids[0], "x")}, CacheError, "unique"),
            ({"labels": [9, 9]}, CacheError, "labels"),
            ({"class_names": ("another", *split.class_names)}, CacheMismatch, "class_names"),
        ):
            with pytest.raises(kind, match=words):
                grow(writer, Addition(**{**vars(wrong), **changes}))
    assert world.files_of(split.path) == files
