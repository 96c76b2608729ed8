"""Videos to tokens: decode some ahead, CLIP over the frames of several videos at once, in a fixed order.

    videos ─ child processes: draw.py ─ threads: replay ─▶ Prepared ─ groups of ~batch_frames ─▶ taps ─▶ Encoded

The groups depend on the order of the videos alone, not on how fast they decode: floating-point sums then come out the
same each time, and a shard made again after a crash has the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.draw import Drawn, draw, draw_guarded, sparse
from vidxfer.pipeline.errors import ClipError, VideoError
from vidxfer.pipeline.grid import pooled
from vidxfer.pipeline.shapes import SourceFile, Video, View
from vidxfer.pipeline.video.container import SQUARE
from vidxfer.pipeline.video.jpeg import encode_frames
from vidxfer.pipeline.video.replay import cut_out, replay
from vidxfer.stages.settings import ExtractRequest


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One video, ready for CLIP.

    Attributes:
        views: the drawn views.
        pixels: normalised float32 [view frame rgb height width], sparse frames only.
        decoder, why: which path decoded it, and the reason.
        frame_count, source_px: of the video; (height, width) in pixels.
        source_file: which file it is.
        version, pixel_aspect: as in `Drawn`.
        jpegs: of each view the frames that are to be kept (`FrameStore.kept`), where they are asked for.
        frame_quality: the lowest that was used.
    """

    views: tuple[View, ...]
    pixels: Tensor
    decoder: str
    why: str
    frame_count: int
    source_px: tuple[int, int]
    source_file: SourceFile
    jpegs: tuple[list[bytes], ...] | None = None
    frame_quality: int | None = None
    version: str = ""
    pixel_aspect: str = SQUARE


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One video as CLIP saw it: tokens [view layer frame token channel] and embedding [view frame embed]."""

    prepared: Prepared
    tokens: Tensor
    embedding: Tensor


def prepare(
    video: Video,
    spec: CacheSpec,
    decoder: str = "auto",
    *,
    processes: int = 0,
    store: FrameStore | None = None,
    device: torch.device | None = None,
) -> Prepared:
    """Open a video once, draw its views, decode their sparse frames, replay each view.

    Args:
        processes: decode in one of so many child processes; 0: here.
        store: how to keep dense frames and windows too; None: not at all.
        device: where frames are cut, resized and normalised; None: on the CPU.

    Raises:
        VideoError: it cannot be read frame-exactly. ClipError: the device's memory does not suffice.
    """
    asked = video, spec, decoder, store is not None, *(() if store is None else (store.window, store.window_ends))
    drawn = draw_guarded(*asked, processes=processes) if processes else draw(*asked)
    seen = [sparse(view, spec) for view in drawn.views]
    try:
        clips = [replay(drawn.of(view), view, device=device, **spec.picture) for view in seen]
    except torch.OutOfMemoryError as error:
        raise ClipError(
            f"{device} has not the memory to resize the frames of {video.path} ({error}). Lower --batch-frames."
        ) from error
    jpegs = None if store is None else [_jpegs(drawn, view, spec, store) for view in drawn.views]
    return Prepared(
        views=drawn.views,
        pixels=torch.stack(clips),
        decoder=drawn.decoder,
        why=drawn.why,
        frame_count=drawn.frame_count,
        source_px=drawn.source_px,
        version=drawn.version,
        pixel_aspect=drawn.pixel_aspect,
        source_file=drawn.source_file,
        jpegs=None if jpegs is None else tuple(files for files, _ in jpegs),
        frame_quality=None if jpegs is None else min(quality for _, quality in jpegs),
    )


def _jpegs(drawn: Drawn, view: View, spec: CacheSpec, store: FrameStore) -> tuple[list[bytes], int]:
    """The kept frames of one view, and the lowest quality that one of them took."""
    view = replace(view, indices=store.kept(view.indices, spec.sampling.alpha, drawn.frame_count))
    cut = cut_out(drawn.of(view), view, image_px=spec.sampling.image_px, resize=spec.resize).numpy()
    return encode_frames(cut, quality=store.quality, subsampling=store.subsampling, most_bytes=store.most_bytes)


def prepare_all(
    videos: Iterable[Video],
    spec: CacheSpec,
    *,
    threads: int,
    decoder: str = "auto",
    decode_in: str = "processes",
    ahead: int = 0,
    store: FrameStore | None = None,
    device: torch.device | None = None,
) -> Generator[Prepared | VideoError]:
    """Prepared videos in order, some decoded ahead; a video that cannot be read comes as its error.

    Args:
        threads: videos at the same time.
        ahead: videos that may be ready before they are wanted, at least two per thread. With as many as CLIP takes at
            once, the threads go on working while CLIP runs.
        decode_in: one of `DECODE_IN`; each thread then has a child process, or not.
        store: how to keep dense frames; None: not at all.
        device: as of `prepare`.
    """
    processes = threads if decode_in == "processes" else 0
    waiting: deque[Future[Prepared]] = deque()
    pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode")

    def take() -> Prepared | VideoError:
        try:
            return waiting.popleft().result()
        except VideoError as error:
            return error

    try:
        for video in videos:
            waiting.append(pool.submit(prepare, video, spec, decoder, processes=processes, store=store, device=device))
            if len(waiting) > max(ahead, 2 * max(1, threads)):
                yield take()
        while waiting:
            yield take()
    finally:
        pool.shutdown(cancel_futures=True)  # after an error nobody wants what was to come


def encode_all(
    prepared: Iterable[Prepared | VideoError], spec: CacheSpec, tower: Tower, *, batch_frames: int
) -> Iterator[Encoded | VideoError]:
    """Run CLIP over consecutive videos, about `batch_frames` frames at a time; errors keep their place in the order."""
    group: list[Prepared | VideoError] = []
    frames = 0
    for prepared_video in prepared:
        group.append(prepared_video)
        if isinstance(prepared_video, Prepared):
            frames += prepared_video.pixels.shape[0] * prepared_video.pixels.shape[1]
        if frames >= batch_frames:
            yield from _encode_group(group, spec, tower)
            group, frames = [], 0
    yield from _encode_group(group, spec, tower)


def encode_videos(
    videos: Iterable[Video],
    spec: CacheSpec,
    tower: Tower,
    request: ExtractRequest,
    store: FrameStore | None = None,
) -> Iterator[Encoded | VideoError]:
    """`prepare_all`, then `encode_all`, as the request says."""
    ready = prepare_videos(videos, spec, request, store, tower.device)
    return encode_all(ready, spec, tower, batch_frames=request.batch_frames)


def prepare_videos(
    videos: Iterable[Video],
    spec: CacheSpec,
    request: ExtractRequest,
    store: FrameStore | None,
    device: torch.device,
) -> Generator[Prepared | VideoError]:
    """`prepare_all` as the request says, one group of CLIP's ahead.

    `device` is CLIP's. A GPU cuts, resizes and normalises the frames too, which are copied to it as uint8.
    """
    return prepare_all(
        videos,
        spec,
        threads=request.decode_threads,
        decoder=request.decoder,
        decode_in=request.decode_in,
        ahead=request.batch_frames // (spec.stored_views * spec.sparse_frames),
        store=store,
        device=device if device.type == "cuda" else None,
    )


def _encode_group(
    group: Sequence[Prepared | VideoError], spec: CacheSpec, tower: Tower
) -> Iterator[Encoded | VideoError]:
    good = [video for video in group if isinstance(video, Prepared)]
    if good:
        pixels = rearrange(
            torch.stack([video.pixels for video in good]),
            "video view frame rgb height width -> (video view frame) rgb height width",
        )
        taps = tower.taps(pixels, spec.layers)
        tokens = rearrange(
            pooled(taps.tokens, spec.pool),
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
    for member in group:
        if isinstance(member, VideoError):
            yield member
        else:
            yield Encoded(prepared=member, tokens=tokens[done], embedding=embedding[done])
            done += 1


def left_out_of(tower: Tower, encoded: Encoded, layers: tuple[int, ...]) -> Tensor | None:
    """Tokens [layer (view frame) token channel] that the tower makes of the same pixels and hands on to nobody."""
    if not tower.info.left_out:
        return None
    return tower.left_out(encoded.prepared.pixels.flatten(0, 1), layers)
