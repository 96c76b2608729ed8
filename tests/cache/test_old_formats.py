"""A cache of every past format stays in git and stays readable. As a script, this file makes the current one's anew.

python tests/cache/test_old_formats.py        only after a change of format, or of a spec field: a promise is broken
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from vidxfer.pipeline.cache.read.check import damage_of
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.spec import FORMAT
from vidxfer.pipeline.cache.store import open_split

HERE = Path(__file__).parent
FAILED_ROW = 1
FINGERPRINTS = {"int8": "ae90aa400a4a10c3", "float16": "8814924479b54672"}
"""Of format 1's caches when they were made: a cache that is on somebody's disk keeps its own."""


def folder_of(form: int, codec: str) -> Path:
    return HERE / f"format{form}" / codec


@pytest.mark.parametrize("codec", ["int8", "float16"])
@pytest.mark.parametrize("form", range(1, FORMAT + 1))
def test_a_cache_of_every_format_is_readable(world: Any, tmp_path: Path, form: int, codec: str) -> None:
    shutil.copytree(folder_of(form, codec), tmp_path / "cache")  # reading writes nothing, but a bug might
    split = open_split(tmp_path / "cache", "train")
    assert split.class_names == world.CLASSES
    assert split.spec.fingerprint == split.spec.from_dict(split.spec.to_dict()).fingerprint
    assert split.spec.fingerprint == FINGERPRINTS[codec]
    with CacheReader(split) as reader:
        assert reader.stored_rows().tolist() == [0, 2]
        assert split.failures()[split.video_ids[1]].reason == "decode_failed"
        for row in (0, 2):
            codes, scale, _, views = world.content_of(split, row)
            found = reader.read([row, row], [0, 1])
            assert torch.equal(found.codes, codes)
            assert scale is None or (found.scale is not None and torch.equal(found.scale, scale))
            assert reader.views_of(row) == views
        assert [damage_of(reader, shard) for shard in range(split.shard_count)] == [[], []]


def remake() -> None:
    """Write the current format's caches."""
    spec = importlib.util.spec_from_file_location("world", HERE / "world.py")
    assert spec is not None
    assert spec.loader is not None
    world = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(world)
    for codec in ("int8", "float16"):
        folder = folder_of(FORMAT, codec)
        shutil.rmtree(folder, ignore_errors=True)
        world.fill(world.make(folder, videos=3, shard_videos=2, codec=codec), failing=(FAILED_ROW,))
        (folder / "train.lock").unlink()


if __name__ == "__main__":
    remake()
