"""Clips from pixels, without a cache: a fresh view of every video in every epoch, CLIP in the loop afterwards.

    (row, epoch) ─▶ open ─ draw view(seed, id, epoch) ─▶ its frames ─▶ replay ─▶ RawBatch without tokens

The draw of epoch e is what a cache would have stored as its e-th view: the same arithmetic, so both paths can be
compared. A video that cannot be read is left out of its batch and named in `refused`: nothing takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

import torch
from torch import Tensor

from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import VideoError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.shapes import Video, View
from vidxfer.pipeline.training.ahead import AheadLoader, RawBatch
from vidxfer.pipeline.training.shown import shown, with_clip
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.replay import replay

DrawView = Callable[[str, int, int, int, int], View]
"""(video id, view number, frames, height px, width px) -> the view."""


class OnlineLoader(AheadLoader):
    """Decodes and draws every clip anew.

    Args:
        split: settings, ids and labels, as a cache would hold them; no array of it is read.
        needs: of the head; frames that neither it nor CLIP sees are not decoded.
        videos: one per row.
        draw: how a view is drawn.
        decode_threads: videos decoded at the same time.
    """

    def __init__(
        self, split: Split, needs: Needs, videos: Sequence[Video], draw: DrawView, *, decode_threads: int = 2
    ) -> None:
        super().__init__(split, decode_threads=decode_threads)
        self.needs, self.videos, self.draw = with_clip(needs), videos, draw
        self._whole: set[int] = set()  # rows whose files were decoded whole once: no need to look for damage again

    def load(self, clips: Sequence[tuple[int, int]]) -> RawBatch:
        """Decode one batch; a video that cannot be read is left out and named in `refused`."""
        pending: list[Future[tuple[Tensor, bool]]] = [self._decode.submit(self._one, *clip) for clip in clips]
        kept: list[tuple[int, Tensor, bool]] = []
        for (row, _), future in zip(clips, pending, strict=True):
            try:
                kept.append((row, *future.result()))
            except VideoError as error:
                self.refused[self.split.video_ids[row]] = f"{error.reason.value}: {error.detail}"
        rows = tuple(row for row, _, _ in kept)
        return RawBatch(
            codes=None,
            embedding=None,
            dense=torch.stack([dense for _, dense, _ in kept]) if kept else None,
            labels=torch.tensor([self.label_of(row, flip) for row, _, flip in kept], dtype=torch.int64),
            rows=rows,
            ids=tuple(self.split.video_ids[row] for row in rows),
        )

    def _one(self, row: int, number: int) -> tuple[Tensor, bool]:
        """Frames [dense rgb height width] of one fresh view, and whether it is mirrored."""
        video, spec = self.videos[row], self.split.spec
        with open_video(
            video.path,
            start_seconds=video.start_seconds,
            end_seconds=video.end_seconds,
            frames=video.frames,
            known_good=row in self._whole,
            square_pixels=spec.square_pixels,
        ) as source:
            view = self.draw(video.id, number, source.frame_count, source.height, source.width)
            indices = shown(view.indices, self.needs, spec.sampling.alpha, source.frame_count)
            view = replace(view, indices=indices)
            frames = source.read(indices)
        self._whole.add(row)
        dense = replay(frames.pixels, view, **spec.picture)
        return dense, view.flip
