"""More views for a split that is there: a part of its own beside it, and not one byte of a finished shard is touched.

    zarr/train            views 0 1    its zarr.json says: "more_views": [2] ◀── written last, when the part is whole
    zarr/train.views/2    views 2 3    a group like the first: the same rows, shards and statistics of the codec

    begin_views ─▶ shards are extracted into the part as into any split ─▶ join_views

Until it is joined the split is what it was; whoever opens it at any moment finds all of the new views or none.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.layout import STORED
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import new_cache_id, open_part, write_new
from vidxfer.pipeline.cache.write.grow import write_attributes
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.disk import disk_errors
from vidxfer.pipeline.errors import CacheError, CacheIncomplete
from vidxfer.pipeline.shapes import SourceFile


def begun_views(split: Split) -> Split | None:
    """The part whose views are being added behind those of a split; None: no such addition is under way.

    Raises:
        CacheError: it is there and cannot be opened. CacheCorrupt: it is of another split.
    """
    path = split.views_path(split.spec.views)
    if split.spec.view_kind != "train" or not (path / "zarr.json").is_file():
        return None
    return split.parts[0].part_beside(open_part(path))


def views_to_add(split: Split, views: int) -> Split:
    """The part that makes a split one of so many views, every row pending. Nothing is written."""
    spec = split.spec
    return replace(
        split.parts[0],
        path=split.views_path(spec.views),
        spec=replace(spec, first_view=spec.views, views=views - spec.views),
        cache_id=new_cache_id(),
        more_views=(),
    )


def begin_views(split: Split, views: int, informs: dict[str, Any]) -> Split:
    """Make the part that makes a split one of `views` views; the split's lock is held.

    Raises:
        CacheError: the folder cannot be written. CacheBusy: another process makes it.
    """
    part = views_to_add(split, views)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    part = replace(part, informs={**part.informs, **informs, "created": created})
    write_new(part)
    return part


def join_views(first: SplitWriter, added: SplitWriter) -> None:
    """Make a finished part count: from here on its views are the split's.

    Args:
        first: writer of the split's first part.
        added: of the part.

    Raises:
        CacheIncomplete: the part has pending shards.
        CacheError: videos are other files than when the first views were extracted; their shards are taken back.
    """
    if pending := added.pending():
        raise CacheIncomplete(f"{added.split.path}: {len(pending)} shards are pending; the views do not count yet")
    expect_same_files(first.split, added)
    split = first.split
    joined = replace(split, more_views=(*split.more_views, added.split.spec.first_view))
    with disk_errors(split.path, 1 << 20):
        write_attributes(joined)
    first.split = joined


def expect_same_files(first: Split, added: SplitWriter) -> None:
    """Check that a part's views are of the files that the first views are of, as far as both say.

    Raises:
        CacheError: videos are other files than when the first views were extracted; their shards are taken back.
    """
    others = _other_files(first, added.split)
    if not others:
        return
    for shard in sorted({row // added.split.shard_videos for row in others}):
        added.drop(shard, "videos are other files than those of the first views")
    names = ", ".join(first.video_ids[row] for row in others[:5])
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    raise CacheError(
        f"{first.path}: {names}{more}: not the files that the first views were extracted from: frames, picture size, "
        "length or bytes differ. The added views of these videos do not count; their shards were taken back. Put the "
        "old files back and run the same command again."
    )


def _other_files(first: Split, added: Split) -> list[int]:
    """Rows stored in both parts whose video has another length or size in the second."""
    ours, theirs = Rows(first), Rows(added)
    both = np.flatnonzero((ours.state == STORED) & (theirs.state == STORED)).tolist()
    return [row for row in both if _seen(ours, row, theirs.file_of(row)) != _seen(theirs, row, ours.file_of(row))]


def _seen(rows: Rows, row: int, other: SourceFile | None) -> tuple[object, ...]:
    """What a part knows of the file that a row was read from, as far as another part knows it too."""
    return *rows.source_of(row), None if other is None else rows.file_of(row)
