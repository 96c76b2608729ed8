"""Where the dense frames of a clip come from: the cache, if it keeps them and they are what the head sees; else videos.

    cache    (row, view) ─▶ JPEGs ─ threads, or nvjpeg for the whole batch ─▶ uint8 ─▶ grey, normalise, mirror
    videos   view ─▶ open, decode, replay                                   float32, the same up to the JPEGs' error

A head that draws its own frames in every epoch (training/bank.py) sees frames that no view stored: it needs the videos.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.shapes import Pixels, Video, View
from vidxfer.pipeline.training.bank import Bank
from vidxfer.pipeline.training.same import NO_IDENTITIES, PUT_BACK, expect_same_file, expect_same_pictures
from vidxfer.pipeline.training.shown import shown
from vidxfer.pipeline.video.jpeg import decode_frames
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.replay import CutFrames, replay

FramesFrom = Literal["auto", "cache", "videos", "changed-videos"]
"""What a person asks for: "auto" is the cache where it can serve. "changed-videos" takes files whose bytes are others
than when the cache was made, as after a move to another container; frames, picture size and turn must agree."""

VIDEOS = ("videos", "changed-videos")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the dense frames come from, and why; printed, it is the line a person reads."""

    cached: bool
    why: str

    def __str__(self) -> str:
        return f"dense frames: from the {'cache' if self.cached else 'videos'} ({self.why})"


def origin_of(split: Split, needs: Needs, asked: str) -> Origin | None:
    """Where a head's dense frames come from; None where it sees none.

    Raises:
        UsageError: the cache is asked for and cannot serve.
    """
    if needs.pixels == "none":
        return None
    why_not = "as asked" if asked in VIDEOS else _why_not(split, needs)
    if asked == "cache" and why_not is not None:
        raise UsageError(f"--frames-from cache: {split.path}: {why_not}. Use --frames-from videos.")
    if why_not is None:
        return Origin(cached=True, why=str(split.frames))
    return Origin(cached=False, why=why_not if split.identities else f"{why_not}; {NO_IDENTITIES}")


def expect_askable(split: Split, asked: str) -> None:
    """Check what can be checked before it is known which head asks.

    Raises:
        UsageError: no such word, or the cache is asked for and keeps no dense frames.
    """
    if asked not in get_args(FramesFrom):
        raise UsageError(f"--frames-from {asked!r} is none of {', '.join(get_args(FramesFrom))}")
    if asked == "cache" and split.frames is None:
        origin_of(split, Needs(pixels="dense"), asked)


def _why_not(split: Split, needs: Needs) -> str | None:
    spec = split.spec
    if split.frames is None:
        return "the cache keeps none; extract --with-frames stores them"
    if needs.pixels == "window":
        return "it keeps the dense frames, the head sees others around each of CLIP's"
    used = needs.sparse_frames or spec.sparse_frames
    if spec.view_kind == "train" and used != spec.sparse_frames and needs.pixels == "dense":
        return f"each epoch draws its own {used} of {spec.sparse_frames} cached frames, and dense frames between them"
    return None


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip to be loaded.

    Attributes:
        row: of the split.
        number: of its stored view.
        view: what is shown of it; its dense indices are drawn.
        places: of the sparse ones on the cache's frame axis.
    """

    row: int
    number: int
    view: View
    places: tuple[int, ...]


class CachedFrames:
    """Dense frames out of a split's JPEGs.

    Args:
        rows: a reader of the split.
        needs: of the head.
        bank: which of the stored frames are used.
        device: where JPEGs are decoded.
    """

    def __init__(self, rows: Rows, needs: Needs, bank: Bank, device: torch.device) -> None:
        self._reader, self._device, self._alpha = FrameReader(rows), device, bank.alpha
        dense = range(rows.split.spec.sampling.dense_frames)
        self._places = None if bank.group == 1 else dense[:: bank.group]
        self._sparse = needs.pixels == "sparse"

    def begin(self, clips: Sequence[Clip], threads: Executor) -> Callable[[], CutFrames]:
        """Start on some clips; what is returned waits for their pixels. Raises then, as `FrameReader.files`."""
        if self._device.type == "cuda":
            started = threads.map(self._files, clips)
            return lambda: _flagged(clips, self._on_device(list(started)))
        decoded = threads.map(self._decoded, clips)
        return lambda: _flagged(clips, torch.stack(list(decoded)))

    def _on_device(self, clips: list[list[Pixels]]) -> Tensor:
        decoded = decode_frames([file for files in clips for file in files], self._device)
        return rearrange(decoded, "(clip dense) rgb height width -> clip dense rgb height width", clip=len(clips))

    def _files(self, clip: Clip) -> list[Pixels]:
        places = [place * self._alpha for place in clip.places] if self._sparse else self._places
        return self._reader.files(clip.row, clip.number, places)

    def _decoded(self, clip: Clip) -> Tensor:
        return decode_frames(self._files(clip), self._device)


def _flagged(clips: Sequence[Clip], pixels: Tensor) -> CutFrames:
    return CutFrames(
        pixels=pixels,
        flip=torch.tensor([clip.view.flip for clip in clips]),
        grey=torch.tensor([clip.view.grey for clip in clips]),
    )


class VideoFrames:
    """Dense frames out of the videos, replayed.

    Args:
        rows: a reader of the split.
        needs: of the head.
        videos: id -> video.
        may_differ: their bytes may be others than when the cache was made.
        way_on: what else can be done where a video is another one; part of the error.
    """

    def __init__(
        self,
        rows: Rows,
        needs: Needs,
        videos: Mapping[str, Video],
        *,
        may_differ: bool = False,
        way_on: str = PUT_BACK,
    ) -> None:
        self._rows, self._needs, self._videos = rows, needs, videos
        self._may_differ, self._way_on = may_differ, way_on
        self._same = np.zeros(len(rows.video_ids), bool)  # rows whose file was looked at: once is enough

    def begin(self, clips: Sequence[Clip], threads: Executor) -> Callable[[], Tensor]:
        """Start on some clips; what is returned waits for float32 [clip dense rgb height width]. Raises then too.

        Raises:
            UsageError: the data set lacks a video. Later: as `dense_frames`.
        """
        for clip in clips:
            name = self._rows.video_ids[clip.row]
            if name not in self._videos:
                raise UsageError(f"video {name!r} is in the cache and not in the data set: is --root the right folder?")
        started = threads.map(self._replayed, clips)
        return lambda: torch.stack(list(started))

    def _replayed(self, clip: Clip) -> Tensor:
        video, rows = self._videos[self._rows.video_ids[clip.row]], self._rows
        stored = rows.file_of(clip.row)
        found = dense_frames(
            video,
            clip.view,
            rows.split.spec,
            rows.source_of(clip.row)[0],
            needs=self._needs,
            quarter_turns=None if stored is None else stored[2],
            way_on=self._way_on,
        )
        if not self._same[clip.row] and not self._may_differ:  # last: what the pictures say is said better
            expect_same_file(video, stored, way_on=self._way_on)
        self._same[clip.row] = True
        return found


def dense_frames(
    video: Video,
    view: View,
    spec: CacheSpec,
    expected_frames: int,
    *,
    needs: Needs | None = None,
    quarter_turns: int | None = None,
    way_on: str = PUT_BACK,
) -> Tensor:
    """Decode and replay the dense frames of one stored view: normalised float32 [dense rgb height width].

    Args:
        video, view, spec: the video, one of its stored views, and the settings of the cache.
        expected_frames, quarter_turns: of the video when the cache was made; 0 and None: not known. The size of its
            pictures then is the view's `source_px`.
        needs: only the frames that such a head sees, or others around them; None: all dense ones.
        way_on: what can be done where the video is another one.

    Raises:
        VideoError: the file cannot be read frame-exactly.
        CacheError: frames, picture size or turn are others than when the cache was made.
    """
    # known_good: extraction decoded this very file whole; here only its frame count is compared again.
    with open_video(
        video.path,
        start_seconds=video.start_seconds,
        end_seconds=video.end_seconds,
        frames=video.frames,
        known_good=True,
        square_pixels=spec.square_pixels,
    ) as source:
        expect_same_pictures(
            video,
            frame_count=(expected_frames, source.frame_count),
            source_px=(view.source_px, (source.height, source.width)),
            quarter_turns=(quarter_turns, source.quarter_turns),
            way_on=way_on,
        )
        if needs is not None:
            view = replace(view, indices=shown(view.indices, needs, spec.sampling.alpha, source.frame_count))
        frames = source.read(view.indices)
    return replay(frames.pixels, view, image_px=spec.sampling.image_px, mean=spec.pixel_mean, std=spec.pixel_std)
