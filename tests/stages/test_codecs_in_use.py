"""Every kind of codec from pixels to a trained head, through the command line; what is stored is what was computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.store import open_split


@pytest.mark.parametrize(
    ("codec", "most"), [("int4", 0.12), ("pca24+int8", 0.4), ("rotate+pq4", 0.3), ("klt1", 0.5), ("klt4", 0.06)]
)
def test_a_cache_of_every_codec_is_extracted_checked_described_and_trained_on(
    toy: Any, invoke: Any, tmp_path: Path, codec: str, most: float
) -> None:
    from vidxfer.stages.extract import extract

    cache = tmp_path / "zarr"
    reports = extract(toy.request(cache, codec=codec))
    assert [report.stored for report in reports] == [24, 16]
    assert invoke("cache", "verify", "--cache", cache).exit_code == 0
    info = json.loads(invoke("cache", "info", "--cache", cache, "--json").stdout)["train"]
    assert (info["codec"], info["bytes_per_view"]) == (codec, open_split(cache, "train").spec.bytes_per_view)
    exact, stored = open_split(toy.float16, "train"), open_split(cache, "train")
    with CacheReader(exact) as truth, CacheReader(stored) as found:
        rows, views = [0, 5, 23], [0, 1, 1]
        tokens = Dequantiser.of(exact)(truth.read(rows, views).codes, None)
        read = found.read(rows, views)
        back = Dequantiser.of(stored)(read.codes, read.scale)
    mean, std = (torch.from_numpy(one)[:, None, None] for one in (stored.channel_mean, stored.channel_std))
    loss = ((back - tokens) / std).square().mean().sqrt() / ((tokens - mean) / std).square().mean().sqrt()
    print(f"{codec}: {loss:.3f}")
    assert loss < most
    settings = [word for one in [*toy.settings(), "epochs=1", "warmup_epochs=0"] for word in ("--set", one)]
    trained = invoke("train", "--cache", cache, "--recipe", "dist-toy", "--run", tmp_path / "run", *settings)
    assert trained.exit_code == 0, trained.stderr
    assert "validation: top-1" in trained.stdout


def test_the_help_of_codec_lists_what_there_is(invoke: Any) -> None:
    for command in ("extract", "plan"):
        words = " ".join(invoke(command, "--codec", "int4", "--help").stdout.split())
        for known in ("float16 (exact)", "int8", "int6", "int4", "pq", "rotate+", "pcaK+", "pca64+int8", "klt4"):
            assert known in words


def test_an_unknown_codec_is_refused_with_the_list_and_the_nearest(toy: Any, invoke: Any, tmp_path: Path) -> None:
    more = ["--root", toy.root, "--model", toy.clip, "--cache", tmp_path / "zarr"]
    for written, nearest in (("int5", "Nearest: int"), ("pca+int8", "pca needs a number"), ("pca64+int8", "channels")):
        result = invoke("extract", *more, "--codec", written)
        assert result.exit_code == 2
        assert nearest in result.stderr
    assert not (tmp_path / "zarr").exists()


def test_plan_counts_the_bytes_of_a_smaller_codec(toy: Any, invoke: Any, tmp_path: Path) -> None:
    more = ["--root", toy.root, "--model", toy.clip, "--cache", tmp_path / "zarr", "--no-measure", "--json"]
    sizes = [
        json.loads(invoke("plan", *more, "--codec", codec).stdout)["splits"][0]["bytes_per_view"]
        for codec in ("float16", "int8", "int6", "int4", "pq4", "pq")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 5 * sizes[-1]
