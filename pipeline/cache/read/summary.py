"""What a cache folder holds, for people: `vidxfer cache info`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.layout import FAILED, PENDING, STORED
from vidxfer.pipeline.cache.read.wanted import open_splits
from vidxfer.pipeline.cache.remote import RemotePath, is_remote
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.more_views import begun_views


def summary(cache_path: Path | str | RemotePath) -> dict[str, dict[str, Any]]:
    """Per split: settings, shapes, bytes on disk, counts of rows by state, and reasons of failure with their counts.

    Raises:
        CacheError: the folder holds no split.
    """
    return {split.path.name: _of_split(split) for split in open_splits(cache_path)}


def _of_split(split: Split) -> dict[str, Any]:
    spec, state = split.spec, Rows(split).state
    records, begun = split.finished().values(), begun_views(split)
    noted: dict[str, Counter[str]] = {}
    for record in records:
        for note, counts in record.notes.items():
            counted = noted.setdefault(note, Counter())
            for text, count in counts.items():
                counted[text.partition("\t")[0]] += count  # behind a tab: the video of which it is said
    bytes_per_frame = sum(spec.form.frame_bytes(spec.tokens, spec.channels))
    return {
        "path": str(split.path),
        "fingerprint": spec.fingerprint,
        "tokens_fingerprint": spec.tokens_fingerprint,
        "spec": spec.to_dict(),
        "passport": {**spec.passport, "informs": _informs(split)},
        "videos": split.video_count,
        "classes": len(split.class_names),
        "shape": dict(zip(*_axes(split), strict=True)),
        "codec": spec.codec,
        "bytes_per_token": round(bytes_per_frame / spec.tokens),
        "bytes_per_view": spec.bytes_per_view,
        "times_smaller_than_float16": 2 * spec.channels * spec.tokens / bytes_per_frame,
        "frames": None if split.frames is None else split.frames.to_dict(),
        "frozen": None if split.frozen is None else {"file": split.frozen.name, "heads": split.frozen.heads},
        "views_in_parts": [_views(part) for part in split.parts],
        "views_being_added": None
        if begun is None
        else {
            "views": _views(begun),
            "shards_finished": len(begun.ledger.finished()),
            "bytes_on_disk": held_bytes(begun),
        },
        "layers": list(spec.layers),
        "shards": split.shard_count,
        "shards_finished": len(records),
        "shard_videos": split.shard_videos,
        "bytes_on_disk": held_bytes(split),
        "bytes_when_finished": sum(part.layout.total_bytes + part.layout.fixed_bytes for part in split.parts),
        "stored": int((state == STORED).sum()),
        "failed": int((state == FAILED).sum()),
        "pending": int((state == PENDING).sum()),
        "reasons": dict(Counter(failure.reason for record in records for failure in record.failed)),
        "notes": {note: dict(counts) for note, counts in noted.items()},
        "informs": dict(split.informs),
    }


def _informs(split: Split) -> dict[str, Any]:
    """What changes no token: how the rows are laid out, and what made them."""
    extents = [
        f"{extent.first_row}..{extent.end - 1}: {extent.dataset} {extent.dataset_fingerprint}"
        for extent in split.extents
    ]
    laid_out: dict[str, Any] = {"shard_videos": split.shard_videos, "rows": len(split.video_ids)}
    if extents:
        laid_out["extents"] = extents
    if split.more:
        laid_out["views"] = [f"{_views(part)}: made {part.informs.get('created', 'before')}" for part in split.parts]
        if not split.spec.form.is_exact:
            laid_out["codec fitted on views"] = _views(split.parts[0])
    return {"cache_id": split.cache_id, **laid_out, **split.informs}


def _views(part: Split) -> str:
    numbers = part.spec.view_numbers
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def _axes(split: Split) -> tuple[list[str], tuple[int, ...]]:
    tokens = split.layout.owned["tokens"]
    return tokens.axes.split(), tokens.shape


def held_bytes(split: Split) -> int:
    """Bytes that a split takes: on this disk, or, behind a URL, what its ledger says of the finished shards."""
    if is_remote(split.path):
        return sum(record.bytes for part in split.parts for record in part.ledger.finished().values())
    return sum(bytes_on_disk(part.path) for part in split.parts)


def bytes_on_disk(folder: Path) -> int:
    """Bytes of the arrays below a local folder, without holes left by failed videos and without rounding to blocks."""
    files = (path.stat() for path in folder.rglob("*") if path.is_file() and path.name != "zarr.json")
    return sum(min(file.st_size, file.st_blocks * 512) for file in files)
