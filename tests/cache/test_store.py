"""Making and opening a split; what plain zarr-python sees."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from vidxfer.pipeline.cache import store
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.errors import CacheError


def test_a_split_opens_as_it_was_made(world: Any, tmp_path: Path) -> None:
    made = world.make(tmp_path / "new" / "zarr")
    found = open_split(tmp_path / "new" / "zarr", "train")
    for name in ("path", "spec", "cache_id", "video_ids", "class_names", "flip_pairs", "shard_videos", "informs"):
        assert getattr(found, name) == getattr(made, name), name
    for name in ("labels", "text", "channel_mean", "channel_std"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
        assert getattr(found, name).dtype == getattr(made, name).dtype
    assert found.flip_pairs == {0: 1, 1: 0}
    assert (found.shard_count, found.shard_videos) == (3, 3)
    assert {"created", "zarr", "vidxfer"} <= set(found.informs)
    assert splits(tmp_path / "new" / "zarr") == ["train"]


def test_plain_zarr_reads_every_array_with_named_axes(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path), failing=(4,))
    group = zarr.open_group(tmp_path / "train", mode="r")
    arrays = dict(group.arrays())  # warnings are errors: nothing strange lies in the group
    assert set(arrays) == {*split.layout.owned, *split.layout.fixed, "video_id"}
    for name, array in {**split.layout.owned, **split.layout.fixed}.items():
        assert arrays[name].metadata.dimension_names == tuple(array.axes.split())
        assert (arrays[name].shape, arrays[name].dtype) == (array.shape, np.dtype(array.dtype))
    assert list(arrays["video_id"][:]) == list(split.video_ids)
    assert arrays["state"][:].tolist() == [1, 1, 1, 1, 2, 1, 1]
    for row in (0, 3, 6):
        codes, scale, embedding, views = world.content_of(split, row)
        np.testing.assert_array_equal(arrays["tokens"][row], codes)
        np.testing.assert_array_equal(arrays["scale"][row], scale)
        np.testing.assert_array_equal(arrays["embedding"][row], embedding.astype(np.float16))
        assert [tuple(x) for x in arrays["frame_index"][row].tolist()] == [view.indices for view in views]
        assert arrays["flip"][row].tolist() == [view.flip for view in views]
        assert arrays["frame_count"][row] == 90 + row
    assert not arrays["tokens"][4].any()  # a failed row reads as zeros: `state` is what says so


def test_tokens_are_not_compressed_and_the_index_is_at_the_end(world: Any, tmp_path: Path) -> None:
    world.make(tmp_path)
    codec = json.loads((tmp_path / "train/tokens/zarr.json").read_text())["codecs"]
    assert [step["name"] for step in codec] == ["sharding_indexed"]
    assert codec[0]["configuration"]["index_location"] == "end"
    assert [step["name"] for step in codec[0]["configuration"]["codecs"]] == ["bytes", "crc32c"]
    assert [step["name"] for step in codec[0]["configuration"]["index_codecs"]] == ["bytes", "crc32c"]


def test_a_moved_cache_reads_the_same(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path / "here"))
    expected = CacheReader(split).read([5], [1]).codes
    shutil.move(tmp_path / "here", tmp_path / "there, ünd weiter")
    with CacheReader(open_split(tmp_path / "there, ünd weiter", "train")) as reader:
        assert (reader.read([5], [1]).codes == expected).all()


def test_a_missing_cache_says_what_was_looked_for_and_how_to_make_it(world: Any, tmp_path: Path) -> None:
    with pytest.raises(
        CacheError, match=r"no cache at .*nowhere/val: .*zarr\.json is not there\. Make it with `vidxfer e"
    ):
        open_split(tmp_path / "nowhere", "val")
    world.make(tmp_path)
    with pytest.raises(
        CacheError, match=r"The folder has: train\. Make it with `vidxfer extract --dataset ssv2 --cache"
    ):
        open_split(tmp_path, "val")
    with pytest.raises(CacheError, match="no cache at"):
        summary(tmp_path / "nowhere")


def test_a_foreign_group_and_a_newer_format_are_refused(world: Any, tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "train", attributes={"title": "weather"})
    with pytest.raises(CacheError, match="is not vidxfer's"):
        open_split(tmp_path, "train")
    (tmp_path / "train/zarr.json").write_text("{}")
    with pytest.raises(CacheError, match="is not vidxfer's"):
        open_split(tmp_path, "train")
    world.make(tmp_path / "b")
    metadata = tmp_path / "b/train/zarr.json"
    stored = json.loads(metadata.read_text())
    stored["attributes"]["vidxfer"]["format"] = 2
    metadata.write_text(json.dumps(stored))
    with pytest.raises(CacheError, match=r"has format 2; this vidxfer reads format 1\. Install"):
        open_split(tmp_path / "b", "train")


def test_an_array_that_is_missing_or_of_another_layout_is_refused(world: Any, tmp_path: Path) -> None:
    world.make(tmp_path)
    metadata = tmp_path / "train/tokens/zarr.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('"int8"', '"uint8"'))
    with pytest.raises(CacheError, match="not the layout of format 1"):
        open_split(tmp_path, "train")
    metadata.unlink()
    with pytest.raises(CacheError, match="the cache is not whole"):
        open_split(tmp_path, "train")


def test_a_split_is_never_made_over_another(world: Any, tmp_path: Path) -> None:
    world.make(tmp_path)
    with pytest.raises(CacheError, match="already exists"):
        world.make(tmp_path)


def test_half_a_split_is_never_seen(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_cut(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store, "sync_tree", power_cut)
        with pytest.raises(KeyboardInterrupt):
            world.make(tmp_path)
    (tmp_path / ".train.0123.part" / "tokens").mkdir(parents=True)  # what kill -9 leaves
    assert splits(tmp_path) == []
    with pytest.raises(CacheError, match="no cache at"):
        open_split(tmp_path, "train")
    world.make(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "train.lock"]


def test_what_does_not_fit_together_is_refused(world: Any, tmp_path: Path) -> None:
    good: dict[str, Any] = {
        "video_ids": ["a", "b"], "labels": [0, -1], "class_names": ["x", "y"], "text": np.zeros((2, 4)),
        "channel_mean": np.zeros((3, 6)), "channel_std": np.ones((3, 6)),
    }  # fmt: skip
    for wrong, words in (
        ({"video_ids": ["a", "a"]}, "repeated: a"),
        ({"labels": [0, 2]}, r"labels must lie in -1\.\.1"),
        ({"labels": [0]}, "labels has shape"),
        ({"text": np.zeros((2, 5))}, "text has shape"),
        ({"channel_std": np.ones((2, 6))}, "channel_std has shape"),
    ):
        with pytest.raises((CacheError, ValueError), match=words):
            store.create_split(tmp_path, world.SPEC, **{**good, **wrong})
    assert splits(tmp_path) == []


def test_the_summary_counts_rows_reasons_and_bytes(world: Any, tmp_path: Path) -> None:
    world.fill(world.make(tmp_path), failing=(2, 3))
    world.make(tmp_path, split="val", videos=2)
    found = summary(tmp_path)
    assert list(found) == ["train", "val"]
    train = found["train"]
    assert (train["stored"], train["failed"], train["pending"]) == (5, 2, 0)
    assert train["reasons"] == {"decode_failed": 2}
    assert train["notes"] == {"decoder": {"pyav-pts": 5}}
    assert train["shape"] == {"video": 7, "view": 2, "layer": 3, "frame": 2, "token": 5, "channel": 6}
    assert train["bytes_on_disk"] >= train["bytes_when_finished"] > 0
    assert (found["val"]["stored"], found["val"]["pending"]) == (0, 2)


def test_factors_of_classes_are_an_optional_attribute(world: Any, tmp_path: Path) -> None:
    world.make(tmp_path / "plain")
    assert "factors" not in json.loads((tmp_path / "plain/train/zarr.json").read_text())["attributes"]["vidxfer"]
    made = world.make(tmp_path / "made")
    with_factors = store.create_split(
        tmp_path / "made",
        replace(made.spec, split="val"),
        **{name: getattr(made, name) for name in ("video_ids", "labels", "class_names", "text")},
        channel_mean=made.channel_mean,
        channel_std=made.channel_std,
        factors={"verb": ["push", "open"]},
    )
    assert open_split(tmp_path / "made", "val").factors == with_factors.factors == {"verb": ("push", "open")}
    with pytest.raises(CacheError, match="each of the factors verb needs one value per class"):
        replace(with_factors, factors={"verb": ("push",)})
