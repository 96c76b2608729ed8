"""One opened split: its settings, its fixed arrays, the paths beside it, and the parts that hold its views.

    zarr/train             views 0 1   ┐ parts: each a group, a ledger and shards of its own, the same rows in all
    zarr/train.views/2     views 2 3   ┴▶ one split of 4 views; a row is stored when it is stored in every part

A split to which no views were added is its own only part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.layout import SplitLayout
from vidxfer.pipeline.cache.ledger import Failure, Ledger, ShardRecord, merged
from vidxfer.pipeline.cache.remote import is_remote
from vidxfer.pipeline.cache.spec import WHICH_VIDEOS, CacheSpec
from vidxfer.pipeline.errors import CacheCorrupt, CacheError
from vidxfer.pipeline.shapes import FrozenFile, expect

GROWING = ("label", "text")
"""Fixed arrays that get longer when videos are added; what else is fixed is the codec's."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Rows that were added together: first_row to end (excluded), their data set, and the folder of its videos."""

    first_row: int
    end: int
    dataset: str
    dataset_fingerprint: str
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, repr=False)
class Split:
    """One split of a cache, opened. Small enough to pickle to another process; holds no open file.

    Attributes:
        path: the group's folder, `<cache>/<split>`.
        spec: the settings.
        cache_id: identity of this very split; its ledger lines carry it.
        video_ids: one per row.
        labels: int32 [video]; -1 = unlabelled.
        class_names: one per class.
        text: float32 [class embed]; None: the tower has no text (`CacheSpec.textless`).
        channel_mean, channel_std: float32 [layer channel].
        flip_pairs: label → label after a left-right flip.
        shard_videos: rows per shard.
        fitted: what the codec fitted beside them, float32, by name; see `Form.fitted_shapes`.
        informs: what made it: versions, time; nothing depends on it.
        factors: name -> value per class, as the data set has them; optional on disk, none in older caches.
        extents: where the rows that hold videos begin and end, and which data set they came from; empty: all rows hold
            videos of the data set the spec names. Rows between extents have the id "" and no label.
        frames: how dense frames are kept; None: they are not, and training decodes the videos.
        identities: which file each video was read from is kept; optional on disk, not in caches of 0.1.0.
        frozen: the file of CLIP's own parameters beside the splits; None: there is none, as in caches of 0.1.0.
        more_views: first view of each part that was added, as the group says; optional on disk.
        more: those parts, opened; the spec then counts their views too. () for a part by itself.
    """

    path: Path
    spec: CacheSpec
    cache_id: str
    video_ids: tuple[str, ...]
    labels: np.ndarray[Any, np.dtype[np.int32]]
    class_names: tuple[str, ...]
    text: np.ndarray[Any, np.dtype[np.float32]] | None
    channel_mean: np.ndarray[Any, np.dtype[np.float32]]
    channel_std: np.ndarray[Any, np.dtype[np.float32]]
    flip_pairs: Mapping[int, int]
    shard_videos: int
    informs: Mapping[str, Any]
    fitted: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]] = field(default_factory=dict)
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extents: tuple[Extent, ...] = ()
    frames: FrameStore | None = None
    identities: bool = False
    frozen: FrozenFile | None = None
    more_views: tuple[int, ...] = ()
    more: tuple[Split, ...] = ()

    def __post_init__(self) -> None:
        spec, videos = self.spec, len(self.video_ids)
        named = [self.video_ids[row] for row in self.video_rows]
        if len(set(named)) != len(named):
            repeated = [name for name, count in Counter(named).items() if count > 1][:5]
            raise CacheError(f"{self.path}: video ids must be unique within a split; repeated: {', '.join(repeated)}")
        expect("labels", self.labels, "video", video=videos)
        if (self.text is None) != spec.textless:
            raise CacheError(f"{self.path}: textless={spec.textless}, and embeddings of class names say otherwise")
        if self.text is not None:
            expect("text", self.text, "class embed", **{"class": len(self.class_names), "embed": spec.embed})
        for name in ("channel_mean", "channel_std"):
            expect(name, getattr(self, name), "layer channel", layer=len(spec.layers), channel=spec.channels)
        if videos and not -1 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.class_names):
            raise CacheError(f"{self.path}: labels must lie in -1..{len(self.class_names) - 1}, the class names' range")
        if any(len(values) != len(self.class_names) for values in self.factors.values()):
            raise CacheError(f"{self.path}: each of the factors {', '.join(self.factors)} needs one value per class")

    def __repr__(self) -> str:
        return f"Split({self.path}, {self.video_count} videos, {self.shard_count} shards, {self.spec.fingerprint})"

    @cached_property
    def layout(self) -> SplitLayout:
        """Where each number lies."""
        return SplitLayout(
            spec=self.spec,
            videos=len(self.video_ids),
            classes=len(self.class_names),
            shard_videos=self.shard_videos,
            extents=tuple((extent.first_row, extent.end) for extent in self.extents) or None,
            frames=self.frames,
            identities=self.identities,
        )

    @property
    def fixed(self) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays that are written when the split is made, by their names in the store; the ids are beside them."""
        return {
            "label": self.labels,
            **({} if self.text is None else {"text": self.text}),
            "channel_mean": self.channel_mean,
            "channel_std": self.channel_std,
            **self.fitted,
        }

    @cached_property
    def video_rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """int64 [row]: the rows that hold a video, stored or not, ascending."""
        if not self.extents:
            return np.arange(len(self.video_ids))
        return np.concatenate([np.arange(extent.first_row, extent.end) for extent in self.extents])

    @property
    def video_count(self) -> int:
        """Number of rows that hold a video."""
        return len(self.video_rows)

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return self.layout.shard_count

    @property
    def cache_folder(self) -> Path:
        """The folder of the cache; a part of the views lies one deeper than a split."""
        return self.path.parents[1] if self.spec.first_view else self.path.parent

    @property
    def led_elsewhere(self) -> str | None:
        """A line that says where the split lies, if it or its cache is a link, as to another disk; else None."""
        linked = not is_remote(self.path) and (self.path.is_symlink() or self.cache_folder.is_symlink())
        return f"{self.path} is behind a link: it is read and written at {self.path.resolve()}" if linked else None

    @property
    def lock_path(self) -> Path:
        """The file whose lock makes a process the writer of this split."""
        return self.path.with_name(self.path.name + ".lock")

    @cached_property
    def parts(self) -> tuple[Split, ...]:
        """What lies on disk: the split itself, or its first views and every part that was added, by view."""
        if not self.more:
            return (self,)
        first_views = self.spec.views - sum(part.spec.views for part in self.more)
        return (replace(self, spec=replace(self.spec, views=first_views), more=()), *self.more)

    @cached_property
    def first_views(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """int64 [part]: number of each part's first view, ascending; the first is 0 whatever the spec says."""
        return np.cumsum([0, *(part.spec.stored_views for part in self.parts[:-1])])

    def part_of(self, view: int) -> tuple[int, int]:
        """Number of the part that holds a view, and the view's number within it."""
        part = int(np.searchsorted(self.first_views, view, side="right")) - 1
        return part, view - int(self.first_views[part])

    def views_path(self, first_view: int) -> Path:
        """Folder of the part that begins with a view."""
        return self.path.with_name(self.path.name + ".views") / str(first_view)

    def part_beside(self, part: Split) -> Split:
        """An opened part with this split's rows: it may have later ones, of an addition that was never finished.

        Raises:
            CacheCorrupt: it is of another split.
        """
        spec = replace(self.spec, first_view=part.spec.first_view, views=part.spec.views)
        known = {name: getattr(spec, name) for name in WHICH_VIDEOS}
        same = (
            replace(part.spec, **known) == spec
            and (part.shard_videos, part.frames) == (self.shard_videos, self.frames)
            and part.video_ids[: len(self.video_ids)] == self.video_ids
            and all(np.array_equal(part.fixed[name], self.fixed[name]) for name in self.fixed if name not in GROWING)
        )
        if not same:
            raise CacheCorrupt(
                f"{part.path} does not hold further views of {self.path}: its videos, settings or codec are others. "
                "Copy the whole cache again from where it came."
            )
        return replace(
            self,
            path=part.path,
            spec=spec,
            cache_id=part.cache_id,
            informs=part.informs,
            identities=part.identities,
            more_views=(),
        )

    def with_parts(self, opened: Sequence[Split]) -> Split:
        """This split and the parts that were added to it as one.

        Raises:
            CacheCorrupt: a part is of another split, or its views do not follow.
        """
        parts = tuple(self.part_beside(part) for part in opened)
        views = self.spec.views
        for part in parts:
            if part.spec.first_view != views:
                raise CacheCorrupt(f"{part.path} begins with view {part.spec.first_view}, expected view {views}")
            views += part.spec.views
        return replace(self, spec=replace(self.spec, views=views), more=parts)

    def finished(self) -> dict[int, ShardRecord]:
        """What is known of each shard that is finished in every part; the failed videos are those of any part."""
        by_part = [part.ledger.finished() for part in self.parts]
        return {
            shard: merged([finished[shard] for finished in by_part])
            for shard in by_part[0]
            if all(shard in finished for finished in by_part)
        }

    def record_of(self, shard: int) -> ShardRecord:
        """What `finished` says of one shard, without asking after the others.

        Raises:
            KeyError: it is not finished in every part.
        """
        return merged([part.ledger.finished()[shard] for part in self.parts])

    def up_to(self, views: int) -> Split:
        """This split without the parts that hold none of its first `views` views."""
        kept = tuple(part for part in self.more if part.spec.first_view < views)
        dropped = sum(part.spec.views for part in self.more[len(kept) :])
        return replace(self, spec=replace(self.spec, views=self.spec.views - dropped), more=kept) if dropped else self

    def failures(self) -> dict[str, Failure]:
        """Id -> why, of every video that failed in a finished shard."""
        return {failure.id: failure for record in self.finished().values() for failure in record.failed}

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger beside the group; of the first part, where there are several (see `finished`)."""
        return Ledger(self.path.with_name(self.path.name + ".ledger.jsonl"), self.cache_id, self.shard_count)
