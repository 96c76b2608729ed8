"""`--sampling`: which rule takes the frames of a view is a setting of the cache, and one that 0.1.0 did not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads import PUBLISHED
from vidxfer.pipeline.training.published import cache_spec
from vidxfer.pipeline.video import sampling as frames_of
from vidxfer.stages.describe import frames_to_store
from vidxfer.stages.extract import extract
from vidxfer.stages.settings import CacheChoice


def test_a_cache_without_a_rule_is_one_of_before() -> None:
    spec = cache_spec(PUBLISHED[0])
    assert "rule" not in spec.to_dict()["sampling"]
    assert CacheSpec.from_dict(spec.to_dict()) == spec
    ruled = replace(spec, sampling=replace(spec.sampling, rule="tds-ss"))
    assert ruled.to_dict()["sampling"]["rule"] == "tds-ss"
    assert CacheSpec.from_dict(ruled.to_dict()) == ruled
    assert ruled.fingerprint != spec.fingerprint
    assert ruled.passport["tokens"]["sampling.rule"] == "tds-ss"


def test_a_bank_has_the_rule_of_segments(toy: Any, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="--bank-frames with --sampling tds-k400"):
        frames_to_store(CacheChoice(sampling="tds-k400", bank_frames=16))
    shown = invoke("plan", "--root", toy.root, "--model", toy.clip, "--sampling", "every", "--no-measure")
    assert shown.exit_code == 2
    assert "sampling.rule='every' is none of segment, tds-ss, tds-k400, tds-dense, evl-ss, evl-k400" in shown.stderr


def test_extraction_stores_the_frames_of_the_rule(toy: Any, tmp_path: Path) -> None:
    data = toy.smaller(tmp_path / "data", count=3)
    extract(toy.request(tmp_path / "zarr", root=data, sampling="tds-ss", dense_frames=4, alpha=1, test_views=2))
    for name, views in (("val", 2), ("train", 2)):
        split = open_split(tmp_path / "zarr", name)
        assert split.spec.sampling.rule == "tds-ss"
        with CacheReader(split) as reader:
            for row in range(len(split.video_ids)):
                count = reader.source_of(row)[0]
                found = [reader.view(row, view).indices for view in range(views)]
                if name == "val":
                    wanted = [frames_of.test_indices(count, split.spec.sampling, views=2, view=view) for view in (0, 1)]
                    assert found == wanted
                edges = [place * count // 4 for place in range(5)]
                if name == "train":
                    assert all(edges[i] <= one[i] < edges[i + 1] for one in found for i in range(4)), (count, found)
