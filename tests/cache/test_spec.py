"""A cache's settings: equal or not, and why not."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.layout import SplitLayout
from vidxfer.pipeline.cache.spec import WHICH_VIDEOS, CacheSpec
from vidxfer.pipeline.errors import CacheError, CacheMismatch
from vidxfer.pipeline.video.sampling import Sampling

FORMAT1 = Path(__file__).parent / "format1"

OTHER: dict[str, Any] = {
    "clip_model": "ViT-L-14-quickgelu", "clip_weights_sha256": "f" * 64, "clip_precision": "bf16", "channels": 7,
    "tokens": 9, "embed": 5, "layers": (1, 2), "pixel_mean": (0.5, 0.5, 0.5), "pixel_std": (0.5, 0.5, 0.5),
    "sampling": Sampling(dense_frames=8, alpha=2), "view_kind": "test", "views": 3, "crops": 3, "codec": "float16",
    "calibration_videos": 4, "dataset": "ssv2", "dataset_fingerprint": "def", "split": "val",
    "first_view": 2, "square_pixels": True, "interpolation": "bicubic", "antialias": True, "resize_mode": "squash",
    "class_row": "mean", "left_out": 4, "textless": True, "blocks_of": "timm", "pool": 2,
}  # fmt: skip


def test_a_spec_survives_json(world: Any) -> None:
    assert CacheSpec.from_dict(json.loads(json.dumps(world.SPEC.to_dict()))) == world.SPEC


def test_every_field_changes_the_fingerprint(world: Any) -> None:
    assert {field.name for field in fields(CacheSpec)} == set(OTHER)
    prints = {replace(world.SPEC, **{name: value}).fingerprint for name, value in OTHER.items()}
    assert len(prints | {world.SPEC.fingerprint}) == len(OTHER) + 1


def test_what_changes_tokens_is_told_from_what_says_which_videos(world: Any) -> None:
    passport, mine = world.SPEC.passport, world.SPEC.tokens_fingerprint
    assert set(passport["videos"]) == {"dataset", "dataset_fingerprint", "split"}
    assert passport["tokens"]["sampling.dense_frames"] == 4
    for name, value in OTHER.items():
        other = replace(world.SPEC, **{name: value})
        assert (other.tokens_fingerprint == mine) == (name in WHICH_VIDEOS), name
        changed = "videos" if name in WHICH_VIDEOS else "tokens"
        assert [part for part in passport if other.passport[part] != passport[part]] == [changed]


def test_fingerprints_of_old_caches_stay(world: Any) -> None:
    for codec, known in (("int8", "ae90aa400a4a10c3"), ("float16", "8814924479b54672")):
        stored = json.loads((FORMAT1 / codec / "train" / "zarr.json").read_text())["attributes"]["vidxfer"]
        assert CacheSpec.from_dict(stored["spec"]).fingerprint == stored["fingerprint"] == known


def test_a_mismatch_names_each_field_with_both_values(world: Any) -> None:
    run = replace(world.SPEC, clip_model="ViT-L-14", sampling=replace(world.SPEC.sampling, dense_frames=16))
    with pytest.raises(CacheMismatch) as caught:
        world.SPEC.expect_same(run, "/data/zarr/train")
    assert caught.value.fields == {"clip_model": ("ViT-tiny", "ViT-L-14"), "sampling.dense_frames": (4, 16)}
    assert str(caught.value).splitlines()[:3] == [
        "/data/zarr/train: this cache was made with other settings:",
        "  clip_model: cache has 'ViT-tiny', run needs 'ViT-L-14'",
        "  sampling.dense_frames: cache has 4, run needs 16",
    ]
    world.SPEC.expect_same(CacheSpec.from_dict(world.SPEC.to_dict()), "there")


def test_unknown_and_missing_settings_are_named(world: Any) -> None:
    stored = world.SPEC.to_dict()
    del stored["embed"], stored["sampling"]["seed"]
    with pytest.raises(CacheError, match=r"missing: embed"):
        CacheSpec.from_dict({**stored, "colour": 1})
    with pytest.raises(CacheError, match=r"unknown: colour"):
        CacheSpec.from_dict({**world.SPEC.to_dict(), "colour": 1})
    with pytest.raises(CacheError, match=r"missing: sampling\.seed"):
        CacheSpec.from_dict({**stored, "embed": 4})
    with pytest.raises(CacheError, match="cannot be meant"):
        CacheSpec.from_dict({**world.SPEC.to_dict(), "codec": "zip"})


@pytest.mark.parametrize(
    "wrong", [{"layers": (3, 1)}, {"layers": ()}, {"layers": (-2,)}, {"views": 0}, {"split": "../x"}, {"codec": "int7"}]
)
def test_a_spec_that_cannot_be_meant_is_refused(world: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(world.SPEC, **wrong)


@pytest.mark.parametrize("codec", ["int8", "float16", "int6", "int4", "pq", "pca5+int4", "rotate+pq4", "pca3+float16"])
def test_the_bytes_of_a_view_are_what_one_more_view_adds_to_the_files(world: Any, codec: str) -> None:
    def total(views: int) -> int:
        spec = replace(world.SPEC, codec=codec, views=views)
        return SplitLayout(spec=spec, videos=10, classes=2, shard_videos=5).total_bytes

    assert total(4) - total(3) == 10 * replace(world.SPEC, codec=codec).bytes_per_view


def test_the_size_of_the_stock_b16_cache_is_the_published_one(world: Any) -> None:
    b16 = replace(
        world.SPEC, channels=768, tokens=197, embed=512, layers=tuple(range(12)), views=1,
        sampling=Sampling(dense_frames=16, alpha=2),
    )  # fmt: skip
    assert b16.token_bytes_per_view == 12 * 8 * 197 * 768 == 14_524_416
    assert replace(b16, codec="float16").token_bytes_per_view == 29_048_832
    assert b16.shard_videos_default == 64
    assert replace(b16, views=10_000).shard_videos_default == 1
    test = replace(b16, view_kind="test", views=3, crops=3)
    assert test.stored_views == 9
    assert test.shard_videos_default * test.bytes_per_view * 9 <= 1_000_000_000
