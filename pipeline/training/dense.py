"""Where the frames come from that a head sees: the cache, if it keeps them; else the videos.

    cache    (row, view) ─▶ JPEGs ─ threads, or nvjpeg for the whole batch ─▶ uint8 ─▶ grey, normalise, mirror
    videos   view ─▶ open, decode, replay                                   float32, the same up to the JPEGs' error

A head that draws its own frames in every epoch (training/bank.py) sees dense frames that no view stored: it needs the
videos. Windows lie around frames that CLIP saw, and those are stored, whichever of them an epoch draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
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
from vidxfer.pipeline.video.sampling import window_indices

FramesFrom = Literal["auto", "cache", "videos", "changed-videos"]
"""What a person asks for: "auto" is the cache where it can serve. "changed-videos" takes files whose bytes are others
than when the cache was made, as after a move to another container; frames, picture size and turn must agree."""

VIDEOS = ("videos", "changed-videos")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the frames come from, and why; printed, it is the line a person reads."""

    cached: bool
    why: str
    what: str = "dense frames"

    def __str__(self) -> str:
        return f"{self.what}: from the {'cache' if self.cached else 'videos'} ({self.why})"


def origin_of(split: Split, needs: Needs, asked: str) -> Origin | None:
    """Where the frames come from that a head sees; None where it sees none.

    Raises:
        UsageError: the cache is asked for and cannot serve.
    """
    if needs.pixels == "none":
        return None
    what = f"windows of {needs.window_frames} frames" if needs.pixels == "window" else "dense frames"
    why = "as asked" if asked in VIDEOS else why_not(split, needs)
    if asked == "cache" and why is not None:
        raise UsageError(f"--frames-from cache: {split.path}: {why}. Use --frames-from videos.")
    if why is None:
        return Origin(cached=True, why=str(split.frames), what=what)
    return Origin(cached=False, why=why if split.identities else f"{why}; {NO_IDENTITIES}", what=what)


def expect_askable(asked: str) -> None:
    """Check the word of `--frames-from`; whether the cache can serve is known when the head is (`origin_of`).

    Raises:
        UsageError: no such word.
    """
    if asked not in get_args(FramesFrom):
        raise UsageError(f"--frames-from {asked!r} is none of {', '.join(get_args(FramesFrom))}")


def why_not(split: Split, needs: Needs) -> str | None:
    """Why a cache cannot serve the frames that a head sees, and what would store them; None: it can."""
    spec, kept = split.spec, split.frames
    windows = needs.pixels == "window" and needs.window_frames > 1
    option = f"--with-frames --window {needs.window_frames}" if windows else "--with-frames"
    option += " --window-ends wrap" if windows and needs.window_ends == "wrap" else ""
    if kept is None:
        return f"the cache keeps none; extract {option} stores them"
    if windows and not kept.holds_windows(needs.window_frames, needs.window_ends):
        stored = f"windows of {kept.window} frames, {kept.window_ends} at the ends" if kept.window else "no windows"
        wanted = f"{needs.window_frames} source frames around each of CLIP's, {needs.window_ends} at the ends"
        return f"it keeps {stored}; the head sees {wanted}; extract {option} stores them"
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
    """Frames out of a split's JPEGs.

    Args:
        rows: a reader of the split.
        needs: of the head.
        bank: which of the stored frames are used.
        device: where JPEGs are decoded.
    """

    def __init__(self, rows: Rows, needs: Needs, bank: Bank, device: torch.device) -> None:
        self._rows, self._reader, self._device = rows, FrameReader(rows), device
        self._needs, self._alpha = needs, bank.alpha
        self._dense = range(0, rows.split.spec.sampling.dense_frames, bank.group)

    def begin(self, clips: Sequence[Clip], threads: Executor) -> Callable[[], CutFrames]:
        """Start on some clips; what is returned waits for their pixels. Raises then, as `FrameReader.files`."""
        if self._device.type == "cuda":
            started = threads.map(self._files, clips)
            return lambda: _flagged(clips, self._on_device(list(started)))
        decoded = threads.map(self._decoded, clips)
        return lambda: _flagged(clips, torch.stack(list(decoded)))

    def _on_device(self, clips: list[tuple[list[Pixels], list[int]]]) -> Tensor:
        decoded = decode_frames([file for files, _ in clips for file in files], self._device)
        apart = torch.split(decoded, [len(files) for files, _ in clips])
        return torch.stack([pixels[shown] for pixels, (_, shown) in zip(apart, clips, strict=True)])

    def _decoded(self, clip: Clip) -> Tensor:
        files, shown = self._files(clip)
        return decode_frames(files, self._device)[shown]

    def _files(self, clip: Clip) -> tuple[list[Pixels], list[int]]:
        """The JPEGs of a clip, each once, and which of them stands for each frame that is shown."""
        places = self._places(clip)
        distinct = sorted(set(places))
        return self._reader.files(clip.row, clip.number, distinct), [distinct.index(place) for place in places]

    def _places(self, clip: Clip) -> Sequence[int]:
        """Where the frames that are shown stand among the kept ones of the view."""
        if self._needs.pixels == "dense":
            return self._dense
        middles = [place * self._alpha for place in clip.places]
        if self._needs.pixels == "sparse":
            return middles
        kept, needs = self._reader.kept(clip.row, clip.number), self._needs
        frame_count = self._rows.source_of(clip.row)[0]
        seen = [kept[place] for place in middles]
        around = window_indices(seen, needs.window_frames, frame_count, needs.window_ends)
        return [kept.index(frame) for frame in around]


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
        frames = dense_frames(
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
        return frames


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
    return replay(frames.pixels, view, **spec.picture)
