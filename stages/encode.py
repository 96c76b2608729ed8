"""Videos to tokens: decode in threads, CLIP over the frames of several videos at once, in a fixed order.

    videos ─ threads: open, draw views, decode, replay ─▶ Prepared ─ groups of ~batch_frames ─▶ taps ─▶ Encoded

The groups depend on the order of the videos alone, not on how fast they decode: floating-point sums then come out the
same each time, and a shard made again after a crash has the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vidxfer.pipeline.cache.layout import as_stored
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.errors import VideoError
from vidxfer.pipeline.shapes import Video, View
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.replay import replay
from vidxfer.pipeline.video.sampling import view_rng
from vidxfer.pipeline.video.views import test_view, train_view


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One video, ready for CLIP.

    Attributes:
        views: the drawn views. pixels: normalised float32 [view frame rgb height width], sparse frames only.
        decoder: which path decoded it. frame_count, source_px: of the video; (height, width) in pixels.
    """

    views: tuple[View, ...]
    pixels: Tensor
    decoder: str
    frame_count: int
    source_px: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One video as CLIP saw it: tokens [view layer frame token channel] and embedding [view frame embed]."""

    prepared: Prepared
    tokens: Tensor
    embedding: Tensor


def draw_views(spec: CacheSpec, video_id: str, frame_count: int, height: int, width: int) -> tuple[View, ...]:
    """All stored views of one video."""
    return tuple(draw_view(spec, video_id, n, frame_count, height, width) for n in range(spec.stored_views))


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
        )
    )


def prepare(video: Video, spec: CacheSpec, decoder: str = "auto") -> Prepared:
    """Open a video once, draw its views, decode their sparse frames, replay each view.

    Raises:
        VideoError: it cannot be read frame-exactly.
    """
    with open_video(
        video.path,
        decoder=decoder,  # type: ignore[arg-type]  # checked by open_video
        start_seconds=video.start_seconds,
        end_seconds=video.end_seconds,
    ) as source:
        views = draw_views(spec, video.id, source.frame_count, source.height, source.width)
        sparse = [replace(view, indices=view.indices[:: spec.sampling.alpha]) for view in views]
        wanted = sorted({index for view in sparse for index in view.indices})
        frames = source.read(wanted)
        place = {index: at for at, index in enumerate(wanted)}
        clips = [
            replay(
                frames.pixels[np.array([place[index] for index in view.indices])],
                view,
                image_px=spec.sampling.image_px,
                mean=spec.pixel_mean,
                std=spec.pixel_std,
            )
            for view in sparse
        ]
        return Prepared(
            views=views,
            pixels=torch.stack(clips),
            decoder=frames.decoder,
            frame_count=source.frame_count,
            source_px=(source.height, source.width),
        )


def prepare_all(
    videos: Iterable[Video], spec: CacheSpec, *, threads: int, decoder: str = "auto"
) -> Iterator[Prepared | VideoError]:
    """Prepared videos in order, a few decoded ahead; a video that cannot be read comes as its error."""
    waiting: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode") as pool:

        def take() -> Prepared | VideoError:
            try:
                return waiting.popleft().result()
            except VideoError as error:
                return error

        for video in videos:
            waiting.append(pool.submit(prepare, video, spec, decoder))
            if len(waiting) > 2 * max(1, threads):
                yield take()
        while waiting:
            yield take()


def encode_all(
    prepared: Iterable[Prepared | VideoError], spec: CacheSpec, tower: ClipTower, *, batch_frames: int
) -> Iterator[Encoded | VideoError]:
    """Run CLIP over consecutive videos, about `batch_frames` frames at a time; errors keep their place in the order."""
    group: list[Prepared | VideoError] = []
    frames = 0
    for one in prepared:
        group.append(one)
        if isinstance(one, Prepared):
            frames += one.pixels.shape[0] * one.pixels.shape[1]
        if frames >= batch_frames:
            yield from _encode_group(group, spec, tower)
            group, frames = [], 0
    yield from _encode_group(group, spec, tower)


def encode_videos(
    videos: Iterable[Video], spec: CacheSpec, tower: ClipTower, *, threads: int, decoder: str, batch_frames: int
) -> Iterator[Encoded | VideoError]:
    """`prepare_all`, then `encode_all`."""
    return encode_all(
        prepare_all(videos, spec, threads=threads, decoder=decoder), spec, tower, batch_frames=batch_frames
    )


def _encode_group(
    group: Sequence[Prepared | VideoError], spec: CacheSpec, tower: ClipTower
) -> Iterator[Encoded | VideoError]:
    good = [one for one in group if isinstance(one, Prepared)]
    if good:
        pixels = rearrange(
            torch.stack([one.pixels for one in good]),
            "video view frame rgb height width -> (video view frame) rgb height width",
        )
        taps = tower.taps(pixels, spec.layers)
        tokens = rearrange(
            taps.tokens,
            "layer (video view frame) token channel -> video view layer frame token channel",
            video=len(good),
            frame=spec.sparse_frames,
        )
        embedding = rearrange(
            taps.embedding,
            "(video view frame) embed -> video view frame embed",
            video=len(good),
            frame=spec.sparse_frames,
        )
    done = 0
    for one in group:
        if isinstance(one, VideoError):
            yield one
        else:
            yield Encoded(prepared=one, tokens=tokens[done], embedding=embedding[done])
            done += 1
