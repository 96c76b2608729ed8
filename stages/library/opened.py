"""A cache in your own code: rows and labels, tokens of one video as numbers, and batches as a head gets them.

open_cache("zarr", "val") ─▶ OpenSplit ─┬─ tokens("an id") ─▶ float32 [layer frame token channel]
                                        └─ batches(run) ───▶ ClipBatch, ClipBatch, …   by the loader of training
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.read.samples import tokens_of
from vidxfer.pipeline.cache.store import splits
from vidxfer.pipeline.errors import CacheMismatch, UsageError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.shapes import ClipBatch, View
from vidxfer.pipeline.training.order import epoch_order
from vidxfer.stages.learning.evaluate import expect_fits_run
from vidxfer.stages.learning.predict import TrainedRun
from vidxfer.stages.learning.sources import CachedSource, cached_source


class OpenSplit:
    """One split of a cache, open for reading; close it, or use it in a `with` block.

    A video is named by its id or by its row. Where a row or a view is not stored, the methods raise CacheIncomplete or
    UsageError; where bytes are damaged, CacheCorrupt.

    Attributes:
        ids: of the videos, one per row; "" where a row holds no video.
        labels: int32 [row]: class of each video; -1: it has none.
        class_names: of the labels.
        text: float32 [class embed]: CLIP's embeddings of the class names.
        rows: int64 [row]: the rows that are stored, ascending. Others wait for extraction, or were refused.
        layers: numbers of the stored CLIP blocks; -1 is the stem.
        views: stored views of each video.
    """

    def __init__(self, source: CachedSource) -> None:
        self._source, split = source, source.split
        self._reader = open_reader(split)
        self._dequantisers: dict[tuple[int, ...], Dequantiser] = {}
        self._row_of = {name: row for row, name in enumerate(split.video_ids) if name}
        self.ids = split.video_ids
        self.labels = split.labels
        self.class_names = split.class_names
        self.text = split.text
        self.rows = self._reader.stored_rows()
        self.layers = split.spec.layers
        self.views = split.spec.stored_views

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the reading threads and close the files."""
        self._reader.close()

    def row_of(self, video: int | str) -> int:
        """Row of a video.

        Raises:
            UsageError: no video of that id, or no such row.
        """
        if isinstance(video, str):
            if video not in self._row_of:
                examples = ", ".join(map(repr, list(self._row_of)[:3]))
                raise UsageError(f"{self._source.split.path} has no video {video!r}; its ids are like {examples}")
            return self._row_of[video]
        if not 0 <= video < len(self.ids):
            raise UsageError(f"{self._source.split.path} has rows 0 to {len(self.ids) - 1}, not {video}")
        return int(video)

    def tokens(self, video: int | str, view: int = 0, layers: Sequence[int] | None = None) -> Tensor:
        """Tokens of one view of a video as numbers, float32 [layer frame token channel]; token 0 is CLS.

        Args:
            video: id or row.
            view: which of the stored views.
            layers: numbers of CLIP blocks, in the order wanted; None: all that are stored.

        Raises:
            CacheError: a layer is not stored; and as the class says.
        """
        wanted = self.expect_layers(layers)
        if wanted not in self._dequantisers:
            self._dequantisers[wanted] = Dequantiser.of(self._source.split, layers=wanted)
        return tokens_of(self._reader, *self._place(video, view), self._dequantisers[wanted])[0]

    def expect_layers(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        """The same layers; all that are stored for None.

        Raises:
            CacheError: a layer is not stored.
        """
        wanted = self.layers if layers is None else tuple(layers)
        self._source.split.spec.layer_positions(wanted)
        return wanted

    def embedding(self, video: int | str, view: int = 0) -> Tensor:
        """CLIP's image embeddings of one view of a video, float32 [frame embed]."""
        return torch.from_numpy(self._reader.embedding(*self._place(video, view))[0].astype(np.float32))

    def view(self, video: int | str, view: int = 0) -> View:
        """Frame numbers, crop box, flip and grey of one stored view of a video."""
        (row,), (number,) = self._place(video, view)
        return self._reader.view(row, number)

    def batches(
        self,
        read_by: TrainedRun | Needs,
        *,
        batch_clips: int = 32,
        rows: Sequence[int] | None = None,
        epoch: tuple[int, int] | None = None,
        device: str = "cpu",
        decode_threads: int = 2,
        read_threads: int = 2,
    ) -> Iterator[ClipBatch]:
        """Batches of what a head reads, by the loader of training and evaluation; the last one may be smaller.

        Args:
            read_by: a run, for whose head they are, or a declaration like `Needs(layers=(11,), embedding=True)`.
            batch_clips: clips in a batch.
            rows: which; None: all that are stored. A run scores videos without a label too.
            epoch: (seed, number): the clips of that epoch of a training, one random view of each video in random order.
                None: every stored view of every video, in the order of the rows.
            device: of the tensors.
            decode_threads: for dense frames.
            read_threads: for tokens.

        Raises:
            CacheMismatch: the cache is not of the kind that the run was trained on.
            CacheError, UsageError: it does not hold what is read. VideoError: a video is needed and cannot be read.
        """
        if batch_clips < 1:
            raise UsageError(f"batch_clips={batch_clips} must be at least 1")
        needs = read_by if isinstance(read_by, Needs) else self._needs_of(read_by)
        chosen = [int(row) for row in (self.rows if rows is None else rows)]
        self._reader.expect_stored(chosen)
        if epoch is None:
            clips = [(row, view) for row in chosen for view in range(self.views)]
        else:
            clips = epoch_order(chosen, self.views, seed=epoch[0], epoch=epoch[1])
        plan = [clips[start : start + batch_clips] for start in range(0, len(clips), batch_clips)]
        place, source = torch.device(device), self._source

        def made() -> Iterator[ClipBatch]:
            assemble = source.assembler(needs, place)
            with source.loader(needs, decode_threads=decode_threads, read_threads=read_threads, device=place) as loader:
                loader.epoch = epoch
                yield from map(assemble, loader.batches(plan))

        return made()

    def _needs_of(self, run: TrainedRun) -> Needs:
        split = self._source.split
        expect_fits_run(run.run, split)
        if split.class_names != run.class_names:
            named: dict[str, tuple[object, object]] = {"class_names": (split.class_names, run.class_names)}
            raise CacheMismatch(
                split.path, named, "Score it with vidxfer.evaluate, which asks for the cache's classes."
            )
        return run.needs

    def _place(self, video: int | str, view: int) -> tuple[list[int], list[int]]:
        if not 0 <= view < self.views:
            raise UsageError(f"{self._source.split.path} has views 0 to {self.views - 1} of each video, not {view}")
        return [self.row_of(video)], [view]


def open_cache(
    path: Path | str, split: str = "train", *, root: Path | str | None = None, frames_from: str = "auto"
) -> OpenSplit:
    """Open one split of a cache for reading.

    Args:
        path: folder of the cache.
        split: "train", "val" or "test".
        root: folder of the data set, where it has moved since; used only where dense frames come from the videos.
        frames_from: as in training: "auto", "cache", "videos" or "changed-videos".

    Raises:
        CacheError: no cache there, or it is damaged. UsageError: it has no such split.
    """
    cache = Path(path)
    there = splits(cache)
    if there and split not in there:
        raise UsageError(f"{cache} has no split {split!r}; it has {', '.join(there)}")
    return OpenSplit(cached_source(cache, split, None if root is None else Path(root), frames_from))
