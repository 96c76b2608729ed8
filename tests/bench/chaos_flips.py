"""One reader over a list of bit flips, in a process of its own: `chaos_flips.py PLAN READER`; prints who was found.

A flip is found when the reader says so: by an error, or by naming the damage. Each is taken back before the next.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheError
from vidxfer.stages.upkeep.verify import VerifyRequest, verify

FOUND = (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, OSError, MemoryError)
"""What zarr and zarrs raise on bytes that are not as they were written."""


def by_verify(cache: Path) -> bool:
    try:
        return any(one.damage or one.pending for one in verify(VerifyRequest(cache=cache)))
    except CacheError:
        return True


def by_our_reader(cache: Path) -> bool:
    """Open the split and read all that training may read: tokens, embeddings, views."""
    try:
        split = open_split(cache, "train")
        with CacheReader(split) as reader:
            rows = reader.stored_rows().tolist()
            if len(rows) < split.video_count:
                return True  # training refuses a cache with pending rows
            for view in range(split.spec.stored_views):
                reader.read(rows, [view] * len(rows))
                reader.embedding(rows, [view] * len(rows))
                for row in rows:
                    reader.view(row, view)
                    reader.source_of(row)
    except CacheError:
        return True
    return False


def by_zarr(cache: Path) -> bool:
    """Open the group and read every array whole."""
    try:
        group = zarr.open_group(cache / "train", mode="r")
        for _, array in group.arrays():
            array[:]
    except FOUND:
        return True
    return False


def by_zarr_in_chunks(cache: Path) -> bool:
    """The same, one chunk of a shard at a time, as a training loop reads."""
    try:
        group: Any = zarr.open_group(cache / "train", mode="r")
        for name, array in group.arrays():
            if name in ("tokens", "scale", "embedding"):
                for place in np.ndindex(*array.shape[: 3 if name != "embedding" else 2]):
                    array[place]
            else:
                array[:]
    except FOUND:
        return True
    return False


READERS: dict[str, Callable[[Path], bool]] = {
    "verify": by_verify, "vidxfer": by_our_reader, "zarr-python": by_zarr, "zarrs": by_zarr,
    "zarrs, chunk by chunk": by_zarr_in_chunks,
}  # fmt: skip


def main(plan: str, reader: str) -> None:
    given = json.loads(Path(plan).read_text())
    if reader.startswith("zarrs"):
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    warnings.simplefilter("ignore")
    found = []
    for name, offset, bit in given["places"]:
        path = Path(name)
        before = path.read_bytes()
        harmed = bytearray(before)
        harmed[offset] ^= bit
        path.write_bytes(harmed)
        try:
            found.append(READERS[reader](Path(given["cache"])))
        finally:
            path.write_bytes(before)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
