"""The seal: what zarr would read as zeros, or not look at, is found when a split is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.metadata import expect_described
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheCorrupt, CacheError


def test_a_missing_file_of_a_small_array_is_not_read_as_zeros(world: Any, tmp_path: Path) -> None:
    for name in ("label", "text", "channel_mean", "channel_std"):
        split = world.make(tmp_path / name)
        (file,) = [path for path in (split.path / name / "c").rglob("*") if path.is_file()]
        file.unlink()
        with pytest.raises(CacheCorrupt, match=f"not as it was written: {name} "):
            open_split(tmp_path / name, "train")


@pytest.mark.parametrize("name", ["label", "text", "channel_mean", "video_id"])
def test_a_flipped_bit_of_a_small_array_is_an_error_of_ours(world: Any, tmp_path: Path, name: str) -> None:
    split = world.make(tmp_path)
    (file,) = [path for path in (split.path / name / "c").rglob("*") if path.is_file()]
    raw = bytearray(file.read_bytes())
    raw[5] ^= 4
    file.write_bytes(raw)
    with pytest.raises(CacheCorrupt, match=f"{name}: cannot be read.*Copy the cache again"):
        open_split(tmp_path, "train")


def test_an_attribute_that_was_changed_is_found(world: Any, tmp_path: Path) -> None:
    file = world.make(tmp_path).path / "zarr.json"
    stored = json.loads(file.read_text())
    stored["attributes"]["vidxfer"]["class_names"][0] += "!"
    file.write_text(json.dumps(stored))
    with pytest.raises(CacheCorrupt, match="not as it was written: attributes "):
        open_split(tmp_path, "train")
    del stored["attributes"]["vidxfer"]["seal"]  # as caches of before have it
    file.write_text(json.dumps(stored))
    assert open_split(tmp_path, "train").class_names[0].endswith("!")


@pytest.mark.parametrize("text", ["{", "[]", '{"codecs": [], "shape": []}'])
def test_a_description_that_is_none_is_an_error_of_ours(world: Any, tmp_path: Path, text: str) -> None:
    split = world.make(tmp_path)
    (split.path / "tokens" / "zarr.json").write_text(text)
    with pytest.raises(CacheError, match=r"tokens/zarr\.json"):
        open_split(tmp_path, "train")


def test_a_description_that_no_reader_of_ours_looks_at_is_verified_too(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path))
    expect_described(split.path)
    file = split.path / "tokens" / "zarr.json"
    file.write_text(file.read_text().replace('"channel"', '"chanmel"'))
    open_split(tmp_path, "train")
    with pytest.raises(CacheCorrupt, match=r"zarr\.json is not as it was written: tokens"):
        expect_described(split.path)
