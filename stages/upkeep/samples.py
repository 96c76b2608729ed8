"""Chosen clips out of a cache, as numbers in one file: `vidxfer cache export`.

ids, views, layers ─▶ rows ─▶ cache/read/samples.py ─▶ FILE.npz or FILE.safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.read.samples import SAMPLE_FILES, samples, write_samples
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SamplesRequest:
    """What to write.

    Attributes:
        cache, split: from where.
        ids: of the videos; empty: the first `first` that are stored.
        views: which; None: all stored.
        layers: which; None: all stored.
        to: the file.
    """

    cache: Path
    to: Path
    split: str = "train"
    ids: tuple[str, ...] = ()
    first: int = 4
    views: tuple[int, ...] | None = None
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class SamplesReport:
    """What was written: the file, its bytes, clips, and the shape of each array."""

    file: Path
    bytes: int
    clips: int
    arrays: dict[str, tuple[int, ...]]


def write_chosen(request: SamplesRequest) -> SamplesReport:
    """Write the chosen clips.

    Raises:
        UsageError: the file's kind, an id or a view is not known. CacheError, CacheIncomplete: as reading.
    """
    if request.to.suffix not in SAMPLE_FILES:
        raise UsageError(f"{request.to}: a file that ends in {' or '.join(SAMPLE_FILES)} is wanted")
    split = open_split(request.cache, request.split)
    row_of = {name: row for row, name in enumerate(split.video_ids) if name}
    if unknown := [name for name in request.ids if name not in row_of]:
        raise UsageError(
            f"{split.path} has no video {unknown[0]!r}; ids are those of the data set, as {next(iter(row_of))!r}"
        )
    views = request.views or tuple(range(split.spec.stored_views))
    if outside := [view for view in views if not 0 <= view < split.spec.stored_views]:
        raise UsageError(f"{split.path} has views 0 to {split.spec.stored_views - 1}, not {outside[0]}")
    with open_reader(split) as reader:
        chosen = [row_of[name] for name in request.ids] or [int(row) for row in reader.stored_rows()[: request.first]]
        arrays = samples(reader, chosen, views, request.layers)
    names = {
        "video_id": [split.video_ids[row] for row in chosen for _ in views],
        "class_names": list(split.class_names),
    }
    write_samples(request.to, arrays, names)
    return SamplesReport(
        file=request.to,
        bytes=request.to.stat().st_size,
        clips=len(chosen) * len(views),
        arrays={name: tuple(values.shape) for name, values in arrays.items()},
    )
