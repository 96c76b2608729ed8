"""What a cache or a run remembers, found again: the CLIP that made its tokens, and the videos they were made from.

    "clip": name, weights ─▶ load, in the precision of the tokens ─▶ the same CLIP? ─▶ Tower
    "data": layout, folder ─▶ list ─▶ the same videos? ─▶ id -> Video

Consequence: every command that needs CLIP or the videos again follows the same rule and gives the same errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.read.agree import expect_tower
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.clip.activation import activation_named
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.resize import AS_DIST
from vidxfer.pipeline.shapes import Video
from vidxfer.stages.settings import ClipChoice, DataSource


def remembered_clip(
    known: Mapping[str, Any],
    made_in: str,
    *,
    device: str,
    precision: str = "auto",
    model: str | None = None,
    pretrained: str | None = None,
) -> ClipChoice:
    """The CLIP that a cache or a run remembers, in the precision its tokens were made in.

    Args:
        known: what is remembered of it (see `ClipChoice.to_dict`).
        made_in: precision of the remembered tokens.
        device: of the tower.
        precision: another one than the tokens'; "auto": theirs, on every device.
        model, pretrained: where CLIP has moved; None: as it is remembered.

    0.1.0 remembers neither resizing nor GELU: it resized as DiST's authors did, and took the GELU of the name.
    """
    return ClipChoice(
        model=model or known["model"],
        pretrained=pretrained or known["pretrained"],
        device=device,
        precision=made_in if precision == "auto" else precision,
        resize=known.get("resize", AS_DIST.words),
        activation=known.get("activation") or activation_named(known["model"]),
    )


def tower_of_caches(splits: Sequence[Split], clip: ClipChoice) -> Tower:
    """The tower that made the tokens of these splits, of which there is at least one.

    Args:
        splits: all are checked.
        clip: the first one's, from `remembered_clip`.

    Raises:
        ClipError: it cannot be loaded. CacheMismatch: it is another than a split was made with.
    """
    tower = clip.load()
    for split in splits:
        expect_tower(split, tower.info)
    return tower


def dense_videos(split: Split, root: Path | None) -> dict[str, Video]:
    """The data set the cache remembers, by id; `root` if it has moved.

    Raises:
        UsageError, DatasetError: the folder is not there, or holds another data set.
    """
    if split.extents:
        return _videos_of_extents(split, root)
    data = DataSource.from_dict(dict(split.informs["data"]), root)
    dataset = data.load(split.spec.split)
    if dataset.fingerprint != split.spec.dataset_fingerprint:
        raise UsageError(
            f"{data.root} does not hold the videos this cache was made from: fingerprint {dataset.fingerprint}, the "
            f"cache has {split.spec.dataset_fingerprint} ({len(dataset)} videos there, {split.video_count} here). "
            "Give the right folder with --root."
        )
    return {video.id: video for video in dataset.videos}


def _videos_of_extents(split: Split, root: Path | None) -> dict[str, Video]:
    """As `dense_videos`, of a cache to which videos were added: each from where it came; `root` is the first one's."""
    videos: dict[str, Video] = {}
    for number, extent in enumerate(split.extents):
        data = replace(DataSource.from_dict(dict(extent.data), root if number == 0 else None), limit=None)
        by_id = {video.id: video for video in data.load(split.spec.split).videos}
        names = split.video_ids[extent.first_row : extent.end]
        missing = [name for name in names if name not in by_id]
        if missing:
            raise UsageError(
                f"{data.root} lacks {len(missing)} of the {len(names)} videos that this cache has from it: "
                f"{', '.join(missing[:3])}. Give the first data set's folder with --root, put later ones back."
            )
        videos |= {name: by_id[name] for name in names}
    return videos
