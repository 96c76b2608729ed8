"""Several splits as one: rows behind each other, labels mapped to one set of classes, nothing copied.

    zarr/k400/train  rows 0 … 3 ─┐                 union row   0 1 2 3 4 5
    zarr/k600/train  rows 0 … 2 ─┴─▶ Union ──▶     member      0 0 0 0 1 1     row 1 of the second shows a recording
                                                   its row     0 1 2 3 0 2     that the first one has: left out

Consequence: what reads a split by row reads a union after one look at `place_of`; tokens are decoded with the
statistics of the split they came from. Splits that were made with other settings are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.read.agree import expect_agree, facts_of
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheIncomplete


@dataclass(frozen=True, kw_only=True)
class Union:
    """One split made of several.

    Attributes:
        split: ids ("k400/<id>"), labels and text of the whole; its path and arrays are not on disk.
        members: the splits.
        names: of each, in ids and reports.
        member_of, row_of: int64 [row]: which member a row is of, and which row there.
    """

    split: Split
    members: tuple[Split, ...]
    names: tuple[str, ...]
    member_of: np.ndarray[Any, np.dtype[np.int64]]
    row_of: np.ndarray[Any, np.dtype[np.int64]]

    def place_of(self, row: int) -> tuple[int, int]:
        """Member and row within it."""
        return int(self.member_of[row]), int(self.row_of[row])

    def rows_of(self, member: int, rows: Sequence[int]) -> list[int]:
        """The union's rows of a member that are among `rows` there, ascending."""
        ours = np.flatnonzero(self.member_of == member)
        return [int(row) for row in ours[np.isin(self.row_of[ours], np.asarray(rows, dtype=np.int64))]]


def unite(
    members: Sequence[Split],
    names: Sequence[str],
    *,
    keep: Sequence[Sequence[int]],
    label_maps: Sequence[Sequence[int]],
    class_names: Sequence[str],
    text: np.ndarray[Any, np.dtype[np.float32]] | None,
    flip_pairs: dict[int, int],
    labels_as: str,
) -> Union:
    """Make a union.

    Args:
        members, names: the splits, and what they are called.
        keep: rows of each that count.
        label_maps: for each split, class -> class of the union.
        class_names, text, flip_pairs: of the union.
        labels_as: name of the set of classes.

    Raises:
        CacheMismatch: two splits were made with other settings. CacheIncomplete: no rows are kept.
    """
    for other in members[1:]:
        expect_agree("cache with cache", other.path, facts_of(other), facts_of(members[0]))
    if not any(len(rows) for rows in keep):
        raise CacheIncomplete("not one video is left of " + ", ".join(str(split.path) for split in members))
    mapped = []
    for split, rows, table in zip(members, keep, label_maps, strict=True):
        own = split.labels[list(rows)]
        mapped.append(np.where(own < 0, -1, np.asarray([*table, -1], dtype=np.int32)[own]).astype(np.int32))
    first = members[0]
    parts = [[split.spec.fingerprint, list(map(int, table))] for split, table in zip(members, label_maps, strict=True)]
    digest = hashlib.sha256(json.dumps([labels_as, list(class_names), parts]).encode()).hexdigest()[:16]
    data = {name: member.informs["data"] for name, member in zip(names, members, strict=True)}
    split = replace(
        first,
        path=Path(" + ".join(str(member.path.parent) for member in members)) / first.spec.split,
        spec=replace(first.spec, dataset=labels_as, dataset_fingerprint=digest),
        cache_id="",
        video_ids=tuple(
            f"{name}/{member.video_ids[row]}"
            for name, member, rows in zip(names, members, keep, strict=True)
            for row in rows
        ),
        labels=np.concatenate(mapped),
        class_names=tuple(class_names),
        text=text,
        flip_pairs=flip_pairs,
        informs={**first.informs, "data": data},
        factors={},
        extents=(),
        more_views=(),
        more=(),
    )
    return Union(
        split=split,
        members=tuple(members),
        names=tuple(names),
        member_of=np.repeat(np.arange(len(members)), [len(rows) for rows in keep]),
        row_of=np.concatenate([np.asarray(rows, dtype=np.int64) for rows in keep]),
    )
