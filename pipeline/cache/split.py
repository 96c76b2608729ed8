"""One opened split: its settings, its fixed arrays, and the paths beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.layout import SplitLayout
from vidxfer.pipeline.cache.ledger import Ledger
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.shapes import expect


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Rows that came together: first_row to end (not included), of which data set, and where its videos were."""

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
        text: float32 [class embed].
        channel_mean, channel_std: float32 [layer channel].
        flip_pairs: label → label after a left-right flip.
        shard_videos: rows per shard.
        fitted: what the codec fitted beside them, float32, by name; see `Form.fitted_shapes`.
        informs: what made it: versions, time; nothing depends on it.
        factors: name -> value per class, as the data set has them; optional on disk, none in older caches.
        extents: where the rows that hold videos begin and end, and which data set they came from; empty: all rows hold
            videos of the data set the spec names. Rows between extents have the id "" and no label.
        frames: how dense frames are kept; None: they are not, and training decodes the videos.
    """

    path: Path
    spec: CacheSpec
    cache_id: str
    video_ids: tuple[str, ...]
    labels: np.ndarray[Any, np.dtype[np.int32]]
    class_names: tuple[str, ...]
    text: np.ndarray[Any, np.dtype[np.float32]]
    channel_mean: np.ndarray[Any, np.dtype[np.float32]]
    channel_std: np.ndarray[Any, np.dtype[np.float32]]
    flip_pairs: Mapping[int, int]
    shard_videos: int
    informs: Mapping[str, Any]
    fitted: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]] = field(default_factory=dict)
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extents: tuple[Extent, ...] = ()
    frames: FrameStore | None = None

    def __post_init__(self) -> None:
        spec, videos = self.spec, len(self.video_ids)
        named = [self.video_ids[row] for row in self.video_rows]
        if len(set(named)) != len(named):
            repeated = [name for name, count in Counter(named).items() if count > 1][:5]
            raise CacheError(f"video ids must be unique within a split; repeated: {', '.join(repeated)}")
        expect("labels", self.labels, "video", video=videos)
        expect("text", self.text, "class embed", **{"class": len(self.class_names), "embed": spec.embed})
        for name in ("channel_mean", "channel_std"):
            expect(name, getattr(self, name), "layer channel", layer=len(spec.layers), channel=spec.channels)
        if videos and not -1 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.class_names):
            raise CacheError(f"labels must lie in -1..{len(self.class_names) - 1}, the class names' range")
        if any(len(values) != len(self.class_names) for values in self.factors.values()):
            raise CacheError(f"each of the factors {', '.join(self.factors)} needs one value per class")

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
            extents=tuple((one.first_row, one.end) for one in self.extents) or None,
            frames=self.frames,
        )

    @property
    def fixed(self) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays that are written when the split is made, by their names in the store; the ids are beside them."""
        return {
            "label": self.labels,
            "text": self.text,
            "channel_mean": self.channel_mean,
            "channel_std": self.channel_std,
            **self.fitted,
        }

    @cached_property
    def video_rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """int64 [row]: the rows that hold a video, stored or not, ascending."""
        if not self.extents:
            return np.arange(len(self.video_ids))
        return np.concatenate([np.arange(one.first_row, one.end) for one in self.extents])

    @property
    def video_count(self) -> int:
        """Number of rows that hold a video."""
        return len(self.video_rows)

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return self.layout.shard_count

    @property
    def lock_path(self) -> Path:
        """The file whose lock makes a process the writer of this split."""
        return self.path.with_name(self.path.name + ".lock")

    @property
    def ledger(self) -> Ledger:
        """The ledger beside the group."""
        return Ledger(self.path.with_name(self.path.name + ".ledger.jsonl"), self.cache_id, self.shard_count)
