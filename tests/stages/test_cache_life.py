"""Parity, prune and export: what is stored is what CLIP says; what is kept and written is what was stored."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.shard import crc_of
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheIncomplete, UsageError
from vidxfer.stages.extract import extract
from vidxfer.stages.upkeep.parity import ParityRequest, parity
from vidxfer.stages.upkeep.prune import PruneRequest, prune
from vidxfer.stages.upkeep.samples import SamplesRequest, write_chosen


@pytest.mark.parametrize("codec", ["int8", "float16"])
def test_what_was_extracted_is_what_clip_says(toy: Any, codec: str) -> None:
    for one in parity(ParityRequest(cache=getattr(toy, codec), videos=3)):
        assert one.holds, one
        assert (one.videos, one.unreadable) == (3, {})
        for layer in one.layers:
            assert 0 < layer.error <= 2 * layer.codec_error + 1e-3
            assert layer.codec_error < (0.02 if codec == "int8" else 1e-3)


def test_tokens_of_another_video_are_found_and_named(toy: Any, tmp_path: Path, invoke: Any) -> None:
    """Two videos' tokens are swapped in layer 1 of view 0, checksums and all: only the pixels can tell."""
    cache = Path(shutil.copytree(toy.int8, tmp_path / "zarr"))
    split = open_split(cache, "val")
    array = split.layout.owned["tokens"]
    file = split.path / array.key(0)
    raw, length = bytearray(file.read_bytes()), array.chunk_bytes + 4
    one, two = array.offset(array.slot(0, 0, 1)), array.offset(array.slot(2, 0, 1))
    raw[one : one + length], raw[two : two + length] = raw[two : two + length], raw[one : one + length]
    file.write_bytes(raw)
    assert crc_of(bytes(raw[one : one + length - 4])) == bytes(raw[one + length - 4 : one + length])
    assert invoke("cache", "verify", "--cache", cache).exit_code == 0
    result = invoke("cache", "parity", "--cache", cache, "--videos", 16)
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("differs")]
    assert line.startswith("differs: val layer 1: ")
    assert any(f"video {split.video_ids[row]}, view 0" in line for row in (0, 2))
    assert "train: what is stored is what CLIP says" in result.stdout


def test_a_pruned_cache_is_what_an_extraction_of_less_would_be(toy: Any, tmp_path: Path) -> None:
    target = tmp_path / "small"
    reports = prune(PruneRequest(source=toy.int8, target=target, layers=(0, 2), views=1))
    assert [(one.split, one.layers, one.views, one.stored) for one in reports] == [
        ("train", (0, 2), 1, 24), ("val", (0, 2), 1, 16)
    ]  # fmt: skip
    assert reports[0].bytes_after < 0.6 * reports[0].bytes_before
    with CacheReader(open_split(toy.int8, "train")) as whole, CacheReader(open_split(target, "train")) as small:
        rows = range(24)
        mine, theirs = small.read(rows, [0] * 24), whole.read(rows, [0] * 24, (0, 2))
        assert torch.equal(mine.codes, theirs.codes)
        assert mine.scale is not None
        assert theirs.scale is not None
        assert torch.equal(mine.scale, theirs.scale)
        assert np.array_equal(small.embedding(rows, [0] * 24), whole.embedding(rows, [0] * 24))
        for row in rows:
            assert small.views_of(row) == whole.views_of(row)[:1]
            assert small.source_of(row) == whole.source_of(row)
        assert [one.notes for one in small.split.ledger.finished().values()] == [
            one.notes for one in whole.split.ledger.finished().values()
        ], "how the videos were read is still told"
    asked = toy.request(target, layers=(0, 2), train_views=1)
    assert [report.stored for report in extract(asked)] == [24, 16], "the same settings: extract takes it as its own"
    assert parity(ParityRequest(cache=target, videos=2))[0].holds
    again = prune(PruneRequest(source=toy.int8, target=target, layers=(0, 2), views=1))
    assert [one.stored for one in again] == [24, 16]


def test_what_cannot_be_kept_is_a_usage_error(toy: Any, tmp_path: Path) -> None:
    request = PruneRequest(source=toy.int8, target=tmp_path / "small")
    for changes, words in (({"layers": (0, 9)}, "layers"), ({"views": 3}, "has 2, of which the first can be kept"),
                           ({"target": toy.int8}, "the cache itself")):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            prune(replace(request, **changes))
    assert not (tmp_path / "small").exists()


def test_nothing_is_written_while_a_split_of_the_source_is_not_finished(toy: Any, tmp_path: Path) -> None:
    source = Path(shutil.copytree(toy.int8, tmp_path / "zarr"))
    open_split(source, "val").ledger.drop(1, "test")
    with pytest.raises(CacheIncomplete, match=r"val: 1 of 4 shards are pending"):
        prune(PruneRequest(source=source, target=tmp_path / "small", layers=(0,)))
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_exported_numbers_are_those_a_head_is_given(toy: Any, tmp_path: Path, invoke: Any, kind: str) -> None:
    split, file = open_split(toy.int8, "train"), tmp_path / f"clips.{kind}"
    ids = [split.video_ids[row] for row in (7, 2)]
    words = ["cache", "export", "--cache", toy.int8, "--to", file, "--layers", "0,2", "--view", 1]
    result = invoke(*words, "--video", ids[0], "--video", ids[1], "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["clips"] == 2
    found = dict(np.load(file)) if kind == "npz" else load_file(file)
    with CacheReader(split) as reader:
        read = reader.read([7, 2], [1, 1], (0, 2))
        wanted = Dequantiser.of(split, layers=(0, 2))(read.codes, read.scale)
        assert np.array_equal(found["tokens"], wanted.numpy())
        assert np.array_equal(found["embedding"], reader.embedding([7, 2], [1, 1]))
        assert found["frame_index"].tolist() == [list(reader.view(row, 1).indices) for row in (7, 2)]
    assert found["tokens"].dtype == np.float32
    assert found["label"].tolist() == split.labels[[7, 2]].tolist()
    if kind == "npz":
        assert found["video_id"].tolist() == ids
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]


def test_an_unknown_id_view_or_kind_of_file_is_a_usage_error(toy: Any, tmp_path: Path) -> None:
    request = SamplesRequest(cache=toy.int8, to=tmp_path / "clips.npz")
    for changes, words in (({"ids": ("nobody",)}, "no video 'nobody'"), ({"views": (2,)}, "views 0 to 1, not 2"),
                           ({"to": tmp_path / "clips.csv"}, "npz or")):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            write_chosen(replace(request, **changes))
