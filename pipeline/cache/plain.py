"""The same reads through zarr-python: slower by 2-4 times, and the proof that the store needs none of our code.

Basic slices only: list and `oindex` selections of sharded arrays read 0.015 GB/s and exhaust the memory (zarr 3.1.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import zarr

from vidxfer.pipeline.cache.reader import Codes
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split


class ZarrReader(Rows):
    """`CacheReader`'s interface over zarr-python."""

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        self._group = zarr.open_group(split.path, mode="r")

    def read(self, rows: Sequence[int], views: Sequence[int], layers: Sequence[int] | None = None) -> Codes:
        """One view per clip, as `CacheReader.read`."""
        self.expect_stored(rows)
        self._expect_views(rows, views)
        positions = self.split.spec.layer_positions(layers)
        scaled = self.split.spec.codec == "int8"
        return Codes(
            codes=torch.from_numpy(self._stack("tokens", rows, views, positions)),
            scale=torch.from_numpy(self._stack("scale", rows, views, positions)) if scaled else None,
        )

    def embedding(self, rows: Sequence[int], views: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32 [clip frame embed], as `CacheReader.embedding`."""
        self.expect_stored(rows)
        self._expect_views(rows, views)
        array = self._group["embedding"]
        found = np.stack([array[row, view] for row, view in zip(rows, views, strict=True)])
        return found.astype(np.float32)

    def _stack(self, name: str, rows: Sequence[int], views: Sequence[int], positions: Sequence[int]) -> Any:
        array = self._group[name]
        clips = zip(rows, views, strict=True)
        return np.stack([np.stack([array[row, view, p] for p in positions]) for row, view in clips])
