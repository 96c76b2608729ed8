"""What a reader hands out: the codes of a batch, in a buffer that is used again; and what every reader can do.

    buffer(32 clips, layers 3 7 11, 4 frames) ──▶ Codes ──read(rows, views, …, out=Codes)──▶ the same memory, filled

New memory costs a page fault per 4 kB, more than reading into it does; memory that a GPU may fetch by itself is pinned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.shapes import _PrintsShapes, expect

Places = Sequence[Sequence[int]]
"""Per clip, which of the stored sparse frames are wanted, in this order."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Codes(_PrintsShapes):
    """Tokens of a batch as they are stored; a `Dequantiser` makes them numbers.

    Attributes:
        codes: int8, float16 or uint8 [clip layer frame token code], as wide as the codec packs them.
        scale: float16 [clip layer frame token], or [clip layer frame token group]; None for float16 codes.
    """

    codes: Tensor
    scale: Tensor | None

    def __post_init__(self) -> None:
        seen = expect("codes", self.codes, "clip layer frame token code")
        if self.scale is not None:
            del seen["code"]
            grouped = " group" * (self.scale.ndim == self.codes.ndim)
            expect("scale", self.scale, "clip layer frame token" + grouped, **seen)


class TokenReader(Rows, ABC):
    """What `CacheReader` (local files, our own reads) and `ZarrReader` (anything zarr-python opens) have in common.

    Safe to use from several threads; close it, or use it in a `with` block. `open_reader` chooses.

    Attributes:
        how: what does the reading, in a few words for people.
    """

    how: str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End the reading threads and close the files."""

    @abstractmethod
    def embedding(self, rows: Sequence[int], views: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32 [clip frame embed]: the projected CLIP image embeddings of one view per clip. Raises as `read`."""

    @abstractmethod
    def _fill(
        self,
        part: Codes,
        rows: Sequence[int],
        views: Sequence[int],
        positions: Sequence[int],
        frames: Places | None,
    ) -> None:
        """Read one view per clip into `part`, which has exactly their shape."""

    def buffer(self, clips: int, layers: Sequence[int] | None = None, frames: int | None = None) -> Codes:
        """A buffer for batches of up to `clips` clips, pinned where there is a GPU; reuse saves page faults.

        Args:
            layers: as for `read`.
            frames: how many of the stored frames are read; None: all of them.
        """
        spec, pinned = self.split.spec, torch.cuda.is_available()
        kept = spec.sparse_frames if frames is None else frames
        outer = (clips, len(spec.layer_positions(layers)), kept)
        made = {
            name: torch.empty((*outer, *array.shape[4:]), dtype=getattr(torch, array.dtype), pin_memory=pinned)
            for name, array in self.split.layout.owned.items()
            if name in ("tokens", "scale")
        }
        return Codes(codes=made["tokens"], scale=made.get("scale"))

    def read(
        self,
        rows: Sequence[int],
        views: Sequence[int],
        layers: Sequence[int] | None = None,
        *,
        frames: Places | None = None,
        out: Codes | None = None,
    ) -> Codes:
        """Read one view per clip.

        Args:
            rows, views: row and stored view of each clip.
            layers: layer numbers in the order wanted; None for all.
            frames: per clip, which stored frames, equally many for each; None for all.
            out: a `buffer` with room for as many clips; the result is its first part and is overwritten by the next
                read into it. None allocates.

        Raises:
            CacheIncomplete: a row is not stored.
            CacheCorrupt: a file is missing or cut off, or a chunk does not match its crc32c.
            CacheError: a layer is not in the cache.
            ValueError: some frames are wanted, and the codec can only decode all of a view together.
        """
        self.expect_stored(rows)
        self._expect_views(rows, views)
        positions = self.split.spec.layer_positions(layers)
        kept = self._frames_each(frames, len(rows))
        full = self.buffer(len(rows), layers, kept) if out is None else out
        if full.codes.shape[0] < len(rows) or full.codes.shape[1:3] != (len(positions), kept):
            needed = f"[{len(rows)} {len(positions)} {kept} ...]"
            raise ValueError(f"the buffer holds {tuple(full.codes.shape)}, needed {needed}")
        part = Codes(codes=full.codes[: len(rows)], scale=None if full.scale is None else full.scale[: len(rows)])
        if part.codes.numel():
            self._fill(part, rows, views, positions, frames)
        return part

    def _frames_each(self, frames: Places | None, clips: int) -> int:
        """How many frames of each clip are wanted, once the request can be meant."""
        stored = self.split.spec.sparse_frames
        if frames is None:
            return stored
        if self.split.spec.form.joins_frames:
            raise ValueError(f"{self.split.spec.codec} decodes all frames of a view together: read all, then choose")
        counts = {len(places) for places in frames}
        if len(frames) != clips or len(counts) > 1:
            raise ValueError(
                f"frames: expected one list per clip, all equally long; {len(frames)} lists, {clips} clips"
            )
        if any(not 0 <= place < stored for places in frames for place in places):
            raise ValueError(f"frames must lie in 0..{stored - 1}")
        return counts.pop() if counts else stored
