"""More videos for a split that is there: rows behind the others, and not one byte of a finished shard is touched.

    rows     0 ………… 129 │ 130 … 191 │ 192 ………… 249          shards of 64: 130 videos, a gap, 58 later ones
    extent   the first  │    gap    │  the later ones

    1 zarr.json of the group: "extents" says what was true already; from here on longer arrays are no error
    2 zarr.json of every array: a longer first axis            each file: written beside, fsync, renamed
    3 ids, labels and text of what is new, in rows that do not count yet
    4 zarr.json of the group: the new extents, classes and seal ◀── before this the old split, from here on the new one

A reader that opens at any moment, and a process that is killed at any moment, finds the old split or the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vidxfer.pipeline.cache.layout import AnyArray
from vidxfer.pipeline.cache.metadata import (
    ATTRIBUTE,
    COPY_AGAIN,
    DESCRIBED,
    MOST_JSON_BYTES,
    SEAL,
    attributes_of,
    described,
)
from vidxfer.pipeline.cache.remote import read_json
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Extent, Split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.disk import disk_errors
from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.pipeline.reading import expect_plain_tree
from vidxfer.pipeline.writing import sync_tree, whole_file


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What is to be added.

    Attributes:
        video_ids: not in the split yet.
        labels: int32 [video], by the grown class names; -1 = unlabelled.
        class_names: all of them: the split's, then the new ones.
        text: float32 [class embed], of the new ones; None: the tower has no text.
        flip_pairs: of all classes.
        factors: name -> value per class, of all classes; as the split has them.
        dataset, dataset_fingerprint, data: where the videos are from.
    """

    video_ids: tuple[str, ...]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    text: AnyArray | None
    flip_pairs: Mapping[int, int]
    factors: Mapping[str, tuple[str, ...]]
    dataset: str
    dataset_fingerprint: str
    data: Mapping[str, Any]


def grown(split: Split, addition: Addition) -> Split:
    """The split with the addition behind its rows, every new row pending. Nothing is written.

    Raises:
        CacheMismatch: the split's class names are not the first ones.
        CacheError: an id is there already, or a label is no class.
    """
    known = split.class_names
    if addition.class_names[: len(known)] != known:
        raise CacheMismatch(split.path, {"class_names": (known, addition.class_names)})
    informs = split.informs.get("data", {})
    spec, rows = split.spec, len(split.video_ids)
    whole = Extent(
        first_row=0, end=rows, dataset=spec.dataset, dataset_fingerprint=spec.dataset_fingerprint, data=informs
    )
    first_row = split.layout.next_shard_row(rows)
    extents = (
        *(split.extents or (whole,)),
        Extent(
            first_row=first_row,
            end=first_row + len(addition.video_ids),
            dataset=addition.dataset,
            dataset_fingerprint=addition.dataset_fingerprint,
            data=addition.data,
        ),
    )
    gap = first_row - rows
    text = addition.text
    new_text = None if text is None else np.asarray(text, dtype=np.float32).reshape(-1, spec.embed)
    return replace(
        split,
        spec=_spec_of(spec, extents),
        video_ids=(*split.video_ids, *[""] * gap, *addition.video_ids),
        labels=np.concatenate([split.labels, np.full(gap, -1), np.asarray(addition.labels)]).astype(np.int32),
        class_names=addition.class_names,
        text=None if split.text is None or new_text is None else np.concatenate([split.text, new_text]),
        flip_pairs=dict(addition.flip_pairs),
        factors=dict(addition.factors),
        extents=extents,
    )


def _spec_of(spec: CacheSpec, extents: Sequence[Extent]) -> CacheSpec:
    """The same settings for other videos: the fingerprint of the data is over those of all extents."""
    prints = [extent.dataset_fingerprint for extent in extents]
    names = "+".join(dict.fromkeys(extent.dataset for extent in extents))
    return replace(spec, dataset=names, dataset_fingerprint=fingerprint_of(prints))


def fingerprint_of(prints: Sequence[str]) -> str:
    """One fingerprint over several."""
    return hashlib.sha256(json.dumps(list(prints)).encode()).hexdigest()[:16]


def grow(writer: SplitWriter, addition: Addition) -> Split:
    """Add the videos to the writer's split, whose lock it holds; returns the grown split, which the writer has now.

    Raises:
        CacheMismatch, CacheError: as `grown`. CacheFull: the disk cannot hold the metadata.
    """
    old = writer.split
    new = grown(old, addition)
    with disk_errors(old.path, 1 << 20):
        if not old.extents:
            write_attributes(replace(old, extents=new.extents[:1]))
        for array in new.layout.owned.values():
            _lengthen(old.path / array.name, len(new.video_ids))
        rows, classes = len(old.video_ids), len(old.class_names)
        ids = np.array(new.video_ids[rows:], dtype=np.dtypes.StringDType())
        for name, first, values in (
            ("video_id", rows, ids),
            ("label", rows, new.labels[rows:]),
            *([] if new.text is None else [("text", classes, new.text[classes:])]),
        ):
            if len(values):
                expect_plain_tree(old.path / name)  # zarr writes there by path
                _lengthen(old.path / name, first + len(values))
                zarr.open_group(old.path, mode="r+")[name][first : first + len(values)] = values
            sync_tree(old.path / name)
        write_attributes(new)
    writer.split = new
    return new


def _lengthen(array: Path, length: int) -> None:
    """Give an array at least this many rows; what it holds stays."""
    metadata = array / "zarr.json"
    stored = read_json(metadata, most=MOST_JSON_BYTES, remedy=COPY_AGAIN)
    if stored["shape"][0] < length:
        stored["shape"][0] = length
        _write_whole(metadata, stored, array.parent)


def write_attributes(split: Split) -> None:
    """Put another description of a part in the place of the one that is there; there is always one of the two."""
    metadata = split.path / "zarr.json"
    stored = read_json(metadata, most=MOST_JSON_BYTES, remedy=COPY_AGAIN)
    known = stored["attributes"][ATTRIBUTE].get(SEAL, {}).get(DESCRIBED)
    stored["attributes"][ATTRIBUTE] = attributes_of(split, described(split.path) if known is None else known)
    _write_whole(metadata, stored, split.path)


def _write_whole(file: Path, content: Any, split: Path) -> None:
    """Written beside, durable, then renamed: there is always one of the two."""
    with whole_file(file, below=split) as stream:
        stream.write(json.dumps(content, indent=2).encode())
