"""Where a training run's clips come from: a cache, or pixels with CLIP in every step.

    cached   zarr/train ─▶ Split on disk  ─▶ ClipLoader                    no CLIP
    online   data set   ─▶ Split in memory ─▶ OnlineLoader ─▶ Tower    fresh views in every epoch, no cache needed

Both give the same `Split` (settings, ids, labels, text) and the same raw batches: everything behind them is one path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from vidxfer.pipeline.cache.layout import PENDING
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.draw import draw_view
from vidxfer.pipeline.errors import DatasetError, UsageError
from vidxfer.pipeline.heads.base import Needs, Offer
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.training.ahead import AheadLoader
from vidxfer.pipeline.training.dense import Origin, expect_askable, origin_of
from vidxfer.pipeline.training.loader import Assembler, ClipLoader
from vidxfer.pipeline.training.online import OnlineLoader
from vidxfer.stages.describe import split_in_memory
from vidxfer.stages.learning.frozen import offer_from
from vidxfer.stages.remembered import dense_videos, remembered_clip, tower_of_caches
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """One split to take clips from. Every kind of source answers the same questions, so nobody asks which kind it is.

    Attributes:
        split: settings, ids, labels and text; on disk or in memory.
    """

    split: Split

    @property
    def cache_names(self) -> tuple[str, ...]:
        """Names of the caches where the source is made of several; ids of the split begin with them."""
        return ()

    def row_ids(self) -> tuple[str, ...]:
        """What a run remembers each row by; it survives a move of the cache."""
        return self.split.video_ids

    def clips_of_epoch(self, clips: Sequence[tuple[int, int]], epoch: int) -> list[tuple[int, int]]:
        """(row, view) of every clip of an epoch, in order, from the (row, stored view) that was drawn for it."""
        return list(clips)

    @abstractmethod
    def offer(self, recipe: Recipe, layers: tuple[int, ...] | None = None) -> Offer:
        """What this source delivers to a head of a recipe; `layers` on offer, None: all. Errors as of `offer_from`."""

    @abstractmethod
    def stored_rows(self) -> list[int]:
        """Rows that can be read."""

    @abstractmethod
    def pending(self) -> int:
        """Number of videos that are not extracted yet."""

    @abstractmethod
    def reasons(self) -> dict[str, str]:
        """Id -> reason of every video that was refused at extraction."""

    @abstractmethod
    def origin(self, needs: Needs) -> Origin | None:
        """Where a head's dense frames come from; None where it sees none, and on the online path.

        Raises:
            UsageError: the cache is asked for, and does not hold what the head sees.
        """

    @abstractmethod
    def assembler(self, needs: Needs, device: torch.device, **settings: Any) -> Assembler:
        """What makes batches of this source's loader; `settings` as of `Assembler`."""

    @abstractmethod
    def loader(
        self, needs: Needs, *, decode_threads: int, read_threads: int, device: torch.device | None = None
    ) -> AheadLoader:
        """A loader of this source's clips, to be used in a `with` block; JPEGs are decoded on `device`."""


@dataclass(frozen=True, kw_only=True)
class CachedSource(Source):
    """A split of a cache, and the videos it was made from.

    Attributes:
        find_videos: gives id -> video; called only when a head needs pixels.
        frames_from: one of `FramesFrom`: where dense frames beside the cached tokens come from.
    """

    find_videos: Callable[[], dict[str, Video]]
    frames_from: str = "auto"

    def offer(self, recipe: Recipe, layers: tuple[int, ...] | None = None) -> Offer:
        """See `Source.offer`."""
        return offer_from(self.split, recipe, layers=layers)

    def stored_rows(self) -> list[int]:
        """Rows whose tokens are stored."""
        return [int(row) for row in Rows(self.split).stored_rows()]

    def pending(self) -> int:
        """Number of videos that are not extracted yet."""
        return int((Rows(self.split).state == PENDING).sum())

    def reasons(self) -> dict[str, str]:
        """Id -> reason of every video that was refused at extraction."""
        return {name: f"{failure.reason}: {failure.detail}" for name, failure in self.split.failures().items()}

    def origin(self, needs: Needs) -> Origin | None:
        """See `Source.origin`."""
        return origin_of(self.split, needs, self.frames_from)

    def assembler(self, needs: Needs, device: torch.device, **settings: Any) -> Assembler:
        """See `Source.assembler`."""
        return Assembler(self.split, needs, device, **settings)

    def loader(
        self, needs: Needs, *, decode_threads: int, read_threads: int, device: torch.device | None = None
    ) -> AheadLoader:
        """See `Source.loader`."""
        origin = self.origin(needs)
        return ClipLoader(
            self.split,
            needs,
            None if origin is None or origin.cached else self._videos_for(origin),
            may_differ=self.frames_from == "changed-videos",
            device=device,
            decode_threads=decode_threads,
            read_threads=read_threads,
        )

    def _videos_for(self, origin: Origin) -> dict[str, Video]:
        """The videos, if the cache does not hold the frames; the error also says why the cache does not serve."""
        try:
            return self.find_videos()
        except (UsageError, DatasetError) as error:
            raise type(error)(f"{error}\nThe head sees frames as pixels. {origin}.") from error


@dataclass(frozen=True, kw_only=True)
class OnlineSource(Source):
    """A split whose videos are decoded in every epoch, with CLIP in every step; no array of it is stored.

    Attributes:
        find_videos: gives id -> video.
        tower: makes tokens and embeddings of the decoded frames.
    """

    find_videos: Callable[[], dict[str, Video]]
    tower: Tower

    def offer(self, recipe: Recipe, layers: tuple[int, ...] | None = None) -> Offer:
        """As a cache's, with CLIP itself beside it."""
        return offer_from(self.split, recipe, tower=self.tower, layers=layers)

    def clips_of_epoch(self, clips: Sequence[tuple[int, int]], epoch: int) -> list[tuple[int, int]]:
        """The same rows in the same order; view `epoch` of each, which no earlier epoch has shown."""
        return [(row, epoch) for row, _ in clips]

    def stored_rows(self) -> list[int]:
        """Every row of a video."""
        return [int(row) for row in self.split.video_rows]

    def pending(self) -> int:
        """Nothing waits: nothing is extracted."""
        return 0

    def reasons(self) -> dict[str, str]:
        """No video was refused before; the loader names those that are refused on the way."""
        return {}

    def origin(self, needs: Needs) -> Origin | None:
        """None: there is no choice, every frame is decoded from the videos."""
        return None

    def assembler(self, needs: Needs, device: torch.device, **settings: Any) -> Assembler:
        """See `Source.assembler`."""
        return Assembler(self.split, needs, device, tower=self.tower, **settings)

    def loader(
        self, needs: Needs, *, decode_threads: int, read_threads: int, device: torch.device | None = None
    ) -> AheadLoader:
        """See `Source.loader`; nothing is read from a cache, and no stored JPEG is decoded."""
        videos = self.find_videos()
        # A row of a gap is never asked for; any video stands in its place.
        rows = [videos[name or self.split.video_ids[0]] for name in self.split.video_ids]
        spec, alpha = self.split.spec, self.split.spec.sampling.alpha
        if needs.sparse_frames:
            spec = replace(spec, sampling=replace(spec.sampling, dense_frames=needs.sparse_frames * alpha))
        return OnlineLoader(self.split, needs, rows, partial(draw_view, spec), decode_threads=decode_threads)


def cached_source(folder: Path, name: str, root: Path | None, frames_from: str = "auto") -> CachedSource:
    """A split of a cache, and the videos it was made from.

    Raises:
        CacheError: no such split. UsageError: `frames_from` is no word of `FramesFrom`.
        Later, of `find_videos`: UsageError, DatasetError: `root` (or the remembered folder) holds other videos.
    """
    expect_askable(frames_from)
    split = open_split(folder, name)
    videos = cache(partial(dense_videos, split, root))
    return CachedSource(split=split, find_videos=videos, frames_from=frames_from)


def online_sources(
    folder: Path, root: Path | None, *, data: DataSource | None, clip: ClipChoice, store: CacheChoice
) -> dict[str, Source]:
    """Both splits from pixels: of the data set given, or of the one the cache was made from, with its settings.

    Raises:
        UsageError: neither a data set nor a cache. ClipError: no tower. CacheMismatch: the tower has changed.
    """
    if data is None:
        if "train" not in splits(folder):
            raise UsageError(
                "--online needs videos: give --dataset and --root, or the cache (--cache) whose videos and CLIP to use"
            )
        opened = {name: open_split(folder, name) for name in splits(folder)}
        first = opened["train"]
        known = remembered_clip(
            first.informs["clip"], first.spec.clip_precision, device=clip.device, precision=clip.precision
        )
        tower = tower_of_caches(list(opened.values()), known)
        return {
            name: OnlineSource(split=split, find_videos=cache(partial(dense_videos, split, root)), tower=tower)
            for name, split in opened.items()
        }
    tower = clip.load()
    sources: dict[str, Source] = {}
    for name in ("train", "val"):
        dataset = data.load(name)
        split = split_in_memory(dataset, tower, data, clip, store)
        by_id = {video.id: video for video in dataset.videos}
        sources[name] = OnlineSource(split=split, find_videos=lambda by_id=by_id: by_id, tower=tower)  # type: ignore[misc]
    return sources


def origins(sources: Mapping[str, Source], needs: Needs) -> list[str]:
    """Where the head's dense frames come from: one line, and another where validation has them from elsewhere."""
    origin_of = {name: str(origin) for name, source in sources.items() if (origin := source.origin(needs)) is not None}
    lines = [f"validation: {line}" if name == "val" else line for name, line in origin_of.items()]
    return lines[:1] if len(set(origin_of.values())) == 1 else lines
