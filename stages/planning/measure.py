"""What this machine does: its disk, its device, its decoders. A few seconds each, and nothing stays behind.

    disk     a file without a name in the cache's folder: written, made durable, dropped from memory, read at random
    device   the tower over random pictures; the recipe's head, forward and backward, over random clips
    CPU      videos as extraction and as training decode them; JPEG of such frames

Every number is the best of what fits the time, after one try that is not counted: a busy machine only makes it worse.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.draw import draw_view
from vidxfer.pipeline.errors import VideoError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.precision import Where, head_precision
from vidxfer.pipeline.shapes import Video, View
from vidxfer.pipeline.training.build import head_of_weights, offer_of
from vidxfer.pipeline.training.dense import dense_frames
from vidxfer.pipeline.video.jpeg import decode_frames
from vidxfer.pipeline.video.reader import open_video
from vidxfer.stages.shards.encode import prepare

MEASURE_SECONDS = 2.5
"""About this long per measurement."""

SLOW_SECONDS = 1.0
"""Where two frames or two clips take longer than this, nothing larger is tried."""

FILE_BYTES, BLOCK_BYTES = 512 << 20, 8 << 20
JPEG_QUALITY = 90


def measure_disk(folder: Path, chunk_bytes: int, threads: int = 2) -> tuple[float, float] | None:
    """GB/s of durable writing and of cold random reads of `chunk_bytes` at a time; None where nothing can be written.

    Cold means: not in this machine's memory. A virtual disk may still have it in its host's.
    """
    room = shutil.disk_usage(folder).free
    if room < 4 * BLOCK_BYTES:
        return None
    if not os.access(folder, os.W_OK):
        return None
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:  # has no name: gone with the process
        fd = file.fileno()
        began, written = time.monotonic(), 0
        block = np.random.default_rng(0).bytes(BLOCK_BYTES)
        most = max(BLOCK_BYTES, min(FILE_BYTES, room // 4))
        while not written or (written < most and time.monotonic() - began < MEASURE_SECONDS):
            written += os.pwrite(fd, block, written)
        os.fsync(fd)
        write = written / (time.monotonic() - began) / 1e9
        return write, _read_rate(fd, written, min(chunk_bytes, written // 2), threads)


def _read_rate(fd: int, file_bytes: int, chunk_bytes: int, threads: int) -> float:
    """GB/s of random reads in several threads, each place once: what was read before is in memory."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    places = np.random.default_rng(1).permutation(file_bytes // chunk_bytes) * chunk_bytes
    began = time.monotonic()

    def read(own_places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
        buffer, read_bytes = bytearray(chunk_bytes), 0
        for place in own_places:
            if time.monotonic() - began > MEASURE_SECONDS:
                break
            read_bytes += os.preadv(fd, [buffer], int(place))
        return read_bytes

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(read, np.array_split(places, threads)))
    return done / (time.monotonic() - began) / 1e9


def measure_clip(tower: Tower, spec: CacheSpec, batch_frames: int) -> float:
    """Frames per second of the tower's forward with all taps."""
    side = spec.sampling.image_px
    few = _seconds(lambda: tower.taps(torch.randn(2, 3, side, side), spec.layers), tower.device, most=0.0)
    if few > SLOW_SECONDS:
        return 2 / few
    # As many as one try of about a second takes: a slow device would spend its time on a single batch.
    frames = max(2, min(batch_frames, int(2 / few)))
    pixels = torch.randn(frames, 3, side, side)
    return frames / _seconds(lambda: tower.taps(pixels, spec.layers), tower.device)


def measure_head(recipe: Recipe, spec: CacheSpec, classes: int, device: torch.device) -> float:
    """Clips per second through forward and backward of a recipe's head, in the precision that training chooses.

    Raises:
        CacheMismatch: the recipe is for other frames or another CLIP than the cache would hold.
    """
    where = Where(device=device, precision=head_precision("auto", device))
    offer = offer_of(spec, recipe, classes=classes, text=torch.randn(classes, spec.embed))
    head = head_of_weights(recipe, offer).to(device)

    def step_of(clips: int) -> Callable[[], None]:
        batch = offer.fake_batch(head.needs, clips, device=device)

        def step() -> None:
            with where.autocast():
                logits = head(batch)
            logits.float().square().mean().backward()

        return step

    few = _seconds(step_of(2), device, most=0.0)
    if few > SLOW_SECONDS:
        return 2 / few
    clips = max(2, min(recipe.batch_clips, 32, int(2 / few)))  # as many as a step of about a second takes
    return clips / _seconds(step_of(clips), device)


def _seconds(work: Callable[[], object], device: torch.device, most: float | None = None) -> float:
    """Seconds of one call: the best of at least one, after one that is not counted."""

    def once() -> float:
        began = time.monotonic()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic() - began

    end = time.monotonic() + (MEASURE_SECONDS if most is None else most)
    first = once()
    if first > MEASURE_SECONDS:  # a slow device: what its first call loses is small beside this
        return first
    best = once()
    while time.monotonic() + best < end:
        best = min(best, once())
    return max(best, 1e-9)


def measure_decode(spec: CacheSpec, dataset: Dataset, threads: int) -> float | None:
    """Videos per second, as extraction decodes them: in child processes. None when not one of a sample can be read."""

    def work(video: Video) -> None:
        prepare(video, spec, processes=threads)

    with suppress(VideoError):
        work(dataset.videos[0])  # the child processes start
    return _videos_per_second(work, dataset, threads)


def measure_dense(spec: CacheSpec, needs: Needs, dataset: Dataset, threads: int) -> float | None:
    """Clips per second, as training decodes them: the frames that a head of these needs sees, cropped and resized."""
    views: dict[str, View] = {}
    for video in dataset.take(min(32, len(dataset))).videos:
        with (
            suppress(VideoError),
            open_video(
                video.path,
                start_seconds=video.start_seconds,
                end_seconds=video.end_seconds,
                frames=video.frames,
                square_pixels=spec.square_pixels,
            ) as source,
        ):
            views[video.id] = draw_view(spec, video.id, 0, source.frame_count, source.height, source.width)
    good = tuple(video for video in dataset.videos if video.id in views)
    if not good:
        return None
    again = replace(dataset, videos=good)
    return _videos_per_second(lambda video: dense_frames(video, views[video.id], spec, 0, needs=needs), again, threads)


def _videos_per_second(work: Callable[[Video], object], dataset: Dataset, threads: int) -> float | None:
    sample = dataset.take(min(256, len(dataset))).videos
    end, began = time.monotonic() + MEASURE_SECONDS, time.monotonic()

    def did_work(video: Video) -> bool:
        if time.monotonic() > end:
            return False
        try:
            work(video)
        except VideoError:
            return False
        return True

    with ThreadPoolExecutor(max(1, threads)) as pool:
        done = sum(pool.map(did_work, sample))
    return done / (time.monotonic() - began) if done else None


def measure_jpeg(spec: CacheSpec, dataset: Dataset, threads: int) -> tuple[float, float] | None:
    """Frames per second of JPEG to pixels in `threads` threads, and bytes per frame; None: no video can be read."""
    file = _jpeg(spec, dataset)
    if file is None:
        return None
    raw = [np.frombuffer(bytearray(file), dtype=np.uint8)]
    began = time.monotonic()
    end = began + MEASURE_SECONDS / 2

    def decode(_: int) -> int:
        done, cpu = 0, torch.device("cpu")
        while time.monotonic() < end:
            decode_frames(raw, cpu)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(decode, range(threads)))
    return done / (time.monotonic() - began), float(len(file))


def _jpeg(spec: CacheSpec, dataset: Dataset) -> bytes | None:
    """A frame of the first readable video, as a cache keeps dense frames."""
    one_frame = replace(spec, sampling=replace(spec.sampling, dense_frames=1, alpha=1))
    store = FrameStore.at(spec.sampling.image_px, quality=JPEG_QUALITY, subsampling="4:4:4")
    for video in dataset.take(min(8, len(dataset))).videos:
        try:
            files = prepare(video, one_frame, store=store).jpegs
        except VideoError:
            continue
        return files[0][0] if files else None
    return None
