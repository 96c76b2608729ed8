"""Does it fit? The bytes and inodes of new splits are compared with the free ones before anything is written.

CacheSpec, videos ─▶ layout ─▶ bytes, files + folders ─▶ free bytes, free inodes ─▶ CacheFull, or nothing
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.layout import SplitLayout
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.errors import CacheFull


def layout_for(
    spec: CacheSpec,
    videos: int,
    classes: int = 1,
    shard_videos: int | None = None,
    frames: FrameStore | None = None,
    identities: bool = True,
) -> SplitLayout:
    """The layout that a new split of so many videos gets."""
    rows = max(1, min(shard_videos or spec.shard_videos_default, videos))
    return SplitLayout(
        spec=spec, videos=videos, classes=classes, shard_videos=rows, frames=frames, identities=identities
    )


def existing_parent(path: Path) -> Path:
    """The folder that is there: `path`, or the one it would be made in."""
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def free_bytes(cache: Path) -> int:
    """Free bytes on the disk where the cache is, or would be made."""
    return shutil.disk_usage(existing_parent(cache)).free


def free_inodes(cache: Path) -> int | None:
    """Free inodes on that disk; None where it has no fixed number of them."""
    disk = os.statvfs(existing_parent(cache))
    return disk.f_favail if disk.f_files else None


def expect_room_for(cache: Path, layouts: Sequence[SplitLayout]) -> None:
    """Refuse what the disk cannot hold.

    Raises:
        CacheFull: says what is needed, what is free, and what makes it smaller.
    """
    needed = sum(layout.total_bytes + layout.fixed_bytes for layout in layouts)
    free = free_bytes(cache)
    if needed > free:
        raise CacheFull(
            f"{cache} would take {needed:,} bytes ({needed / 1e9:.1f} GB), "
            f"its disk has {free:,} ({free / 1e9:.1f} GB free). Smaller: fewer "
            "layers (--layers 3,7,11), --codec int8 or int4, fewer views; or another disk (--cache). "
            "`vidxfer plan` shows the sizes."
        )
    inodes, left = sum(layout.inodes for layout in layouts), free_inodes(cache)
    if left is not None and inodes > left:
        raise CacheFull(
            f"{cache} would take {inodes:,} files and folders, its disk has {left:,} inodes free. Fewer: more videos "
            "per shard (--shard-videos); or another disk (--cache). `vidxfer plan` shows the numbers."
        )
