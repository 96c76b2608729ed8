"""One video to the raw frames of its views: what runs where decoding runs, a thread or a child process.

    file ─▶ count, height, width ─▶ views drawn ─▶ their sparse frames, each decoded once ─▶ Drawn (uint8)

Nothing here loads torch, so that a child process starts in a fraction of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.views import as_stored
from vidxfer.pipeline.shapes import SourceFile, Video, View, WindowEnds
from vidxfer.pipeline.video.guard import shared_guard
from vidxfer.pipeline.video.identity import identity_of
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.sampling import view_rng, window_indices
from vidxfer.pipeline.video.views import test_view, train_view

DECODE_IN = ("processes", "threads")
"""Where videos are decoded: in child processes, which a bad video can only end; or in threads of this one."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The frames that the views of one video need.

    Attributes:
        views: as stored, with all their dense indices.
        indices: the distinct frames that are needed, sorted: those CLIP sees, all dense ones, those of windows.
        pixels: uint8 [frame height width rgb], one per index.
        decoder, why, version: which path decoded it, the reason, and the libraries behind the path.
        frame_count, source_px: of the video; (height, width) in pixels.
        source_file: which file it is.
        pixel_aspect: width to height of one stored pixel, as in "4:3".
    """

    views: tuple[View, ...]
    indices: tuple[int, ...]
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    decoder: str
    why: str
    version: str
    frame_count: int
    source_px: tuple[int, int]
    pixel_aspect: str
    source_file: SourceFile

    def of(self, view: View) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """uint8 [frame height width rgb]: the frames of one view, whose indices must be among ours."""
        return self.pixels[np.searchsorted(np.array(self.indices), np.array(view.indices))]


def draw_views(spec: CacheSpec, video_id: str, frame_count: int, height: int, width: int) -> tuple[View, ...]:
    """All stored views of one video."""
    return tuple(draw_view(spec, video_id, number, frame_count, height, width) for number in spec.view_numbers)


def draw_view(spec: CacheSpec, video_id: str, number: int, frame_count: int, height: int, width: int) -> View:
    """View `number` of one video: a random draw (a function of seed, id and number alone), or a fixed test view.

    Rounded as it is stored: what CLIP sees now is what a replay will show later.
    """
    if spec.view_kind == "train":
        rng = view_rng(spec.sampling.seed, video_id, number)
        return as_stored(train_view(frame_count, height, width, sampling=spec.sampling, rng=rng))
    view, crop = divmod(number, spec.crops)
    return as_stored(
        test_view(
            frame_count,
            height,
            width,
            sampling=spec.sampling,
            views=spec.views,
            view=view,
            crops=spec.crops,
            crop=crop,
            resize_mode=spec.resize.resize_mode,
        )
    )


def sparse(view: View, spec: CacheSpec) -> View:
    """The frames of a view that CLIP sees."""
    return replace(view, indices=view.indices[:: spec.sampling.alpha])


def draw(
    video: Video,
    spec: CacheSpec,
    decoder: str = "auto",
    dense: bool = False,
    window_frames: int = 0,
    window_ends: WindowEnds = "clamp",
) -> Drawn:
    """Open a video once, draw its views, decode the frames that CLIP sees.

    With `dense`, those between them too; with `window_frames`, that many source frames around each of CLIP's too.

    Raises:
        VideoError: it cannot be read frame-exactly.
    """
    identity = identity_of(video.path)
    with open_video(
        video.path,
        decoder=decoder,  # type: ignore[arg-type]  # checked by open_video
        start_seconds=video.start_seconds,
        end_seconds=video.end_seconds,
        square_pixels=spec.square_pixels,
        frames=video.frames,
    ) as source:
        views = draw_views(spec, video.id, source.frame_count, source.height, source.width)
        seen = [(view if dense else sparse(view, spec)).indices for view in views]
        if window_frames:
            middles = [sparse(view, spec).indices for view in views]
            seen += [window_indices(middle, window_frames, source.frame_count, window_ends) for middle in middles]
        wanted = sorted({index for indices in seen for index in indices})
        frames = source.read(wanted)
        return Drawn(
            views=views,
            indices=tuple(wanted),
            pixels=frames.pixels,
            decoder=frames.decoder,
            why=source.why,
            version=source.version,
            frame_count=source.frame_count,
            source_px=(source.height, source.width),
            pixel_aspect=source.pixel_aspect,
            source_file=(*identity, source.quarter_turns),
        )


def draw_guarded(
    video: Video,
    spec: CacheSpec,
    decoder: str = "auto",
    dense: bool = False,
    window_frames: int = 0,
    window_ends: WindowEnds = "clamp",
    *,
    processes: int = 1,
) -> Drawn:
    """`draw` in one of `processes` child processes, within a limit of time and memory.

    Raises:
        VideoError: as `draw`, and TOO_SLOW, OUT_OF_MEMORY, CRASHED or UNEXPECTED where the child had to be ended, died
            or raised what nobody foresaw. UnforeseenError: that happens to too many videos.
    """
    asked = video, spec, decoder, dense, window_frames, window_ends
    return shared_guard(processes).submit(video.path, draw, *asked).result()
