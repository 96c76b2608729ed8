"""Where a training run's clips come from: a cache, or pixels with CLIP in every step.

    cached   zarr/train ─▶ Split on disk  ─▶ ClipLoader                    no CLIP
    online   data set   ─▶ Split in memory ─▶ OnlineLoader ─▶ ClipTower    fresh views in every epoch, no cache needed

Both give the same `Split` (settings, ids, labels, text) and the same raw batches: everything behind them is one path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidxfer.pipeline.cache.layout import PENDING
from vidxfer.pipeline.cache.read.agree import expect_tower
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.draw import draw_view
from vidxfer.pipeline.errors import DatasetError, UsageError
from vidxfer.pipeline.heads.base import Needs, Offer
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.training.ahead import AheadLoader
from vidxfer.pipeline.training.dense import Origin, expect_askable, origin_of
from vidxfer.pipeline.training.loader import Assembler, ClipLoader
from vidxfer.pipeline.training.online import OnlineLoader
from vidxfer.pipeline.video.mirror import flip_pairs
from vidxfer.stages.describe import describe_split
from vidxfer.stages.learning.frozen import offer_from
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource, library_versions


@dataclass(frozen=True, kw_only=True)
class Source:
    """One split to take clips from.

    Attributes:
        split: settings, ids, labels and text; on disk or in memory.
        find_videos: gives id -> video; called only when a head needs pixels.
        tower: on the online path; None: tokens are cached.
        frames_from: one of `FramesFrom`: where dense frames beside cached tokens come from.
    """

    split: Split
    find_videos: Callable[[], dict[str, Video]]
    tower: ClipTower | None
    frames_from: str = "auto"

    def origin(self, needs: Needs) -> Origin | None:
        """Where a head's dense frames come from; None where it sees none, and on the online path.

        Raises:
            UsageError: the cache is asked for, and does not hold what the head sees.
        """
        return origin_of(self.split, needs, self.frames_from) if self.tower is None else None

    def offer(self, recipe: Recipe, layers: tuple[int, ...] | None = None) -> Offer:
        """What it delivers to a head of this recipe; arguments and errors as `offer_from`."""
        return offer_from(self.split, recipe, tower=self.tower, layers=layers)

    def stored_rows(self) -> list[int]:
        """Rows that can be read: the stored ones of a cache, all of an online source."""
        if self.tower is not None:
            return list(range(len(self.split.video_ids)))
        return [int(row) for row in Rows(self.split).stored_rows()]

    def row_ids(self) -> tuple[str, ...]:
        """What a run remembers each row by; it survives a move of the cache."""
        return self.split.video_ids

    def pending(self) -> int:
        """Number of videos that are not extracted yet."""
        return 0 if self.tower is not None else int((Rows(self.split).state == PENDING).sum())

    def reasons(self) -> dict[str, str]:
        """Id -> reason of every video that was refused at extraction."""
        failures = {} if self.tower is not None else self.split.failures()
        return {name: f"{one.reason}: {one.detail}" for name, one in failures.items()}

    def assembler(self, needs: Needs, device: torch.device, **settings: Any) -> Assembler:
        """What makes batches of this source's loader; `settings` as of `Assembler`."""
        return Assembler(self.split, needs, device, tower=self.tower, **settings)

    def loader(
        self, needs: Needs, *, decode_threads: int, read_threads: int, device: torch.device | None = None
    ) -> AheadLoader:
        """A loader of this source's clips, to be used in a `with` block; JPEGs are decoded on `device`."""
        if self.tower is None:
            origin = self.origin(needs)
            videos = None if origin is None or origin.cached else self._videos_for(origin)
            return ClipLoader(
                self.split,
                needs,
                videos,
                may_differ=self.frames_from == "changed-videos",
                device=device,
                decode_threads=decode_threads,
                read_threads=read_threads,
            )
        videos = self.find_videos()
        # A row of a gap is never asked for; any video stands in its place.
        rows = [videos[name or self.split.video_ids[0]] for name in self.split.video_ids]
        spec, alpha = self.split.spec, self.split.spec.sampling.alpha
        if needs.sparse_frames:
            spec = replace(spec, sampling=replace(spec.sampling, dense_frames=needs.sparse_frames * alpha))
        return OnlineLoader(self.split, needs, rows, partial(draw_view, spec), decode_threads=decode_threads)

    def _videos_for(self, origin: Origin) -> dict[str, Video]:
        """The videos, where the cache does not serve; what is raised where they are not found says why it does not."""
        try:
            return self.find_videos()
        except (UsageError, DatasetError) as error:
            raise type(error)(f"{error}\nThe head sees frames as pixels. {origin}.") from error


def cached_source(folder: Path, name: str, root: Path | None, frames_from: str = "auto") -> Source:
    """A split of a cache, and the videos it was made from.

    Raises:
        CacheError: no such split. UsageError: `frames_from` is no word of `FramesFrom`.
        Later, of `find_videos`: UsageError, DatasetError: `root` (or the remembered folder) holds other videos.
    """
    expect_askable(frames_from)
    split = open_split(folder, name)
    videos = cache(partial(dense_videos, split, root))
    return Source(split=split, find_videos=videos, tower=None, frames_from=frames_from)


def dense_videos(split: Split, root: Path | None) -> dict[str, Video]:
    """The data set the cache remembers, by id; `root` if it has moved.

    Raises:
        UsageError, DatasetError: the folder is not there, or holds another data set.
    """
    if split.extents:
        return _videos_of_extents(split, root)
    data = DataSource.from_dict(dict(split.informs["data"]), root)
    found = data.load(split.spec.split)
    if found.fingerprint != split.spec.dataset_fingerprint:
        raise UsageError(
            f"{data.root} does not hold the videos this cache was made from: fingerprint {found.fingerprint}, the "
            f"cache has {split.spec.dataset_fingerprint} ({len(found)} videos there, {split.video_count} here). "
            "Give the right folder with --root."
        )
    return {video.id: video for video in found.videos}


def _videos_of_extents(split: Split, root: Path | None) -> dict[str, Video]:
    """As `dense_videos`, of a cache to which videos were added: each from where it came; `root` is the first one's."""
    videos: dict[str, Video] = {}
    for number, extent in enumerate(split.extents):
        data = replace(DataSource.from_dict(dict(extent.data), root if number == 0 else None), limit=None)
        found = {video.id: video for video in data.load(split.spec.split).videos}
        names = split.video_ids[extent.first_row : extent.end]
        missing = [name for name in names if name not in found]
        if missing:
            raise UsageError(
                f"{data.root} lacks {len(missing)} of the {len(names)} videos that this cache has from it: "
                f"{', '.join(missing[:3])}. Give the first data set's folder with --root, put later ones back."
            )
        videos |= {name: found[name] for name in names}
    return videos


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
        found = {name: open_split(folder, name) for name in splits(folder)}
        known = found["train"].informs["clip"]
        made_in = found["train"].spec.clip_precision
        precision = made_in if clip.precision == "auto" else clip.precision
        tower = load_tower(known["model"], known["pretrained"], device=clip.device, precision=precision)
        for split in found.values():
            expect_tower(split, tower.info)
        return {
            name: Source(split=split, find_videos=cache(partial(dense_videos, split, root)), tower=tower)
            for name, split in found.items()
        }
    tower = load_tower(clip.model, clip.pretrained, device=clip.device, precision=clip.precision)
    sources = {}
    for name in ("train", "val"):
        dataset = data.load(name)
        split = split_in_memory(dataset, tower, data, clip, store)
        by_id = {video.id: video for video in dataset.videos}
        sources[name] = Source(split=split, find_videos=lambda by_id=by_id: by_id, tower=tower)  # type: ignore[misc]
    return sources


def split_in_memory(
    dataset: Dataset, tower: ClipTower, data: DataSource, clip: ClipChoice, store: CacheChoice
) -> Split:
    """What a cache of these choices would say of itself, without its arrays."""
    spec = describe_split(store, tower.info, dataset)
    shape = (len(spec.layers), spec.channels)
    return Split(
        path=Path("online") / dataset.split,
        spec=spec,
        cache_id="",
        video_ids=tuple(video.id for video in dataset.videos),
        labels=np.array([-1 if v.label is None else v.label for v in dataset.videos], dtype=np.int32),
        class_names=dataset.class_names,
        text=tower.encode_text(dataset.class_names, store.templates).numpy(),
        channel_mean=np.zeros(shape, dtype=np.float32),
        channel_std=np.ones(shape, dtype=np.float32),
        flip_pairs=flip_pairs(dataset.class_names),
        shard_videos=spec.shard_videos_default,
        informs={
            **library_versions(),
            "data": data.to_dict(),
            "clip": clip.to_dict(),
            "logit_scale": tower.info.logit_scale,
            "templates": list(store.templates),
        },
        factors=dataset.factors,
    )
