"""Which rows can be read, and what is known of them without their tokens.

A row is valid when its shard has a ledger line *and* its state is "stored"; the numbers themselves never say so, since
what was never written reads as zeros.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.layout import GAP, PENDING, STORED, AnyArray
from vidxfer.pipeline.cache.shard import read_plain
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.views import stored_view
from vidxfer.pipeline.errors import CacheIncomplete
from vidxfer.pipeline.shapes import SourceFile, View

VIEW_ARRAYS = ("frame_index", "crop", "resize_first", "flip", "grey")


class Rows:
    """What is known of the rows of a split without reading tokens. Base of both readers.

    Args:
        split: the split.
        without: shards that are left out although they are finished; their rows count as pending.

    Attributes:
        split: the split.
        state: uint8 [video]: pending, stored or failed; pending where the shard has no ledger line; GAP: no video.
            Where views were added later: failed in one part is failed, stored is stored in all.
    """

    def __init__(self, split: Split, *, without: Container[int] = ()) -> None:
        self.split = split
        self._identified: set[int] = set()  # shards that say which files they were read from
        self._small: dict[tuple[int, str, int], AnyArray] = {}
        states = np.stack([self._states_in(part, without) for part in range(len(split.parts))])
        # Of a row that failed in one part no views are used: a head is to draw from all of them, or from none.
        self.state = np.where((states == PENDING).any(0), PENDING, states.max(0)).astype(np.uint8)

    @property
    def video_ids(self) -> tuple[str, ...]:
        """One id per row."""
        return self.split.video_ids

    def stored_rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """int64 [row]: the rows that can be read, ascending."""
        return np.flatnonzero(self.state == STORED)

    def view(self, row: int, view: int) -> View:
        """One stored view of a video."""
        self.expect_stored([row])
        self._expect_views([row], [view])
        shard, place = divmod(row, self.split.shard_videos)
        part, within = self.split.part_of(view)
        stored = stored_view({name: self._rows_of(name, shard, part) for name in VIEW_ARRAYS}, place, within)
        height_px, width_px = (int(side) for side in self._rows_of("source_px", shard, part)[place])
        return replace(stored, source_px=(height_px, width_px)) if height_px and width_px else stored

    def views_of(self, row: int) -> list[View]:
        """All stored views of a video."""
        return [self.view(row, view) for view in range(self.split.spec.stored_views)]

    def source_of(self, row: int) -> tuple[int, int, int]:
        """(frames, height in px, width in px) of the video as extraction saw it; 0 = unknown."""
        self.expect_stored([row])
        shard, place = divmod(row, self.split.shard_videos)
        height_px, width_px = (int(side) for side in self._rows_of("source_px", shard)[place])
        return int(self._rows_of("frame_count", shard)[place]), height_px, width_px

    def file_of(self, row: int) -> SourceFile | None:
        """Which file the video was read from, as extraction saw it; None where the cache does not say."""
        self.expect_stored([row])
        shard, place = divmod(row, self.split.shard_videos)
        if shard not in self._identified:
            return None
        file_bytes, hashed, turns = (int(number) for number in self._rows_of("source_file", shard)[place])
        return (file_bytes, hashed, turns) if file_bytes else None

    def frame_lengths(self, row: int, view: int) -> AnyArray:
        """int32 [kept]: bytes of the JPEG of each kept frame of a stored view, where the split keeps frames; then 0."""
        shard, place = divmod(row, self.split.shard_videos)
        part, within = self.split.part_of(view)
        lengths: AnyArray = self._rows_of("frame_bytes", shard, part)[place, within]
        return lengths

    def expect_stored(self, rows: Sequence[int]) -> None:
        """Raise CacheIncomplete, naming the videos, unless every row is stored."""
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self.state)):
            raise ValueError(f"rows must lie in 0..{len(self.state) - 1}")
        holes = [int(row) for row in wanted if self.state[row] != STORED]
        if holes:
            why = {PENDING: "not extracted", GAP: "row of no video"}
            words = [f"{self.video_ids[r]} ({why.get(int(self.state[r]), 'failed')})".strip() for r in holes]
            more = f" and {len(words) - 5} more" if len(words) > 5 else ""
            raise CacheIncomplete(
                f"{self.split.path}: asked for videos that are not stored: {', '.join(words[:5])}{more}. "
                "`vidxfer extract` stores what is missing; `vidxfer cache info` says why videos failed."
            )

    def _states_in(self, part: int, without: Container[int]) -> AnyArray:
        """State of every row in one part."""
        split = self.split.parts[part]
        state = np.full(len(split.video_ids), GAP, dtype=np.uint8)
        state[split.video_rows] = PENDING
        for shard, record in split.ledger.finished().items():
            if shard in without:
                continue
            if part == 0 and split.identities and "source_file" in record.crc32c:
                self._identified.add(shard)
            rows = split.layout.rows(shard)
            state[rows.start : rows.stop] = self._rows_of("state", shard, part)[: len(rows)]
        return state

    def _rows_of(self, name: str, shard: int, part: int = 0) -> AnyArray:
        """The rows of one shard of an array that is not sharded; read and checked once."""
        if (part, name, shard) not in self._small:
            split = self.split.parts[part]
            array = split.layout.owned[name]
            self._small[part, name, shard] = read_plain(split.path / array.key(shard), array)
        return self._small[part, name, shard]

    def _expect_views(self, rows: Sequence[int], views: Sequence[int]) -> None:
        if len(rows) != len(views):
            raise ValueError(f"one view per clip: {len(rows)} rows but {len(views)} views")
        outside = [view for view in views if not 0 <= view < self.split.spec.stored_views]
        if outside:
            raise ValueError(f"views {outside} are not in 0..{self.split.spec.stored_views - 1}")
